"""Dataset card (README) of a folder of self-replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builders.sources.made import SelfReplay
from dataset_builders.storage import replace_text


def write_readme(
    out: Path, settings: SelfReplay, report: Mapping[str, Any], inputs: Mapping[str, Any]
) -> None:
    """Write `README.md`: contents, origin, drop counts and cost.

    Args:
        out: The folder.
        settings: Settings of the run.
        report: Its report.
        inputs: What the data depend on.
    """
    spent = report["spent"]
    facts: dict[str, Any] = {
        "Prompts": settings.prompts,
        "Prompts (fingerprint)": inputs["prompts"],
        **{f"Model ({name})": value for name, value in inputs["model"].items()},
        "History of later turns": settings.history,
        "Temperature": settings.temperature,
        "Top p": settings.top_p,
        "Sampling seed": settings.seed if settings.temperature else None,
        "Maximum tokens of an answer": settings.max_new_tokens,
        "Filters": ", ".join(settings.filters) or "none",
        "Rows": report["rows"],
        **{f"Records not read: {name}": n for name, n in sorted(report["unread"].items())},
        **{f"Conversations: {name}": n for name, n in sorted(report["conversations"].items())},
        **{f"Answers: {name}": n for name, n in sorted(report["answers"].items())},
        "Tokens read": spent["prompt_tokens"] or None,
        "Tokens written": spent["completion_tokens"] or None,
        "Cost": None if spent["cost"] is None else f"${spent['cost']:.4f}",
    }
    rows = [
        f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items() if value is not None
    ]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train.jsonl",
        "---",
        "",
        "# Self-generated replay",
        "",
        "Conversations in the `messages` format whose assistant turns a model wrote itself. "
        "`train` is true on its turns.",
        "",
        "| | |",
        "|---|---|",
        *rows,
    ]
    replace_text(out / "README.md", "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
