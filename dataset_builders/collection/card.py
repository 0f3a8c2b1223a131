"""Dataset card (README) of collected data: contents, origin and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dataset_builders.storage import replace_text

_CARDS = "card"
MESSAGES = "messages"

CALLS = {
    "calls": "Tool calls",
    "malformed_call": "Tool calls that could not be read",
    "unknown_tool": "Calls of unknown tools",
    "invalid_arguments": "Calls with invalid arguments",
    "no_call": "Turns without a tool call",
    "call_after_end": "Calls after the end, not executed",
}
"""Labels of `Trajectory.call_counts`."""

THOUGHTS = {
    "had_thought": "Turns that had a thought",
    "left_bare": "Turns left without a thought",
    "no_action": "Turns without an action to explain",
    "written": "Turns whose thought was added afterwards",
}
"""Labels of the outcomes that `ThoughtReport` counts."""


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Contents of the dataset card for one environment.

    Attributes:
        environment: Its name.
        model: The acting model, such as "gpt-4" or "oracle".
        prompt: The prompt template, such as "own:1f0c9a3e".
        min_reward: Minimum reward of kept trajectories.
        filters: Additional filters, such as "max_rounds=10".
        counts: "played", "kept" and the number dropped for each reason, of tasks: each is
            judged by its last attempt.
        attempts: Attempts that ended, or None where that is not known.
        cut_turns: Turns of all tasks that were cut at the token limit, or None.
        call_counts: Tool calls of all tasks and their faults; empty for dialogues without tools.
        prompt_tokens: Tokens that the model read, or None where that is not known.
        completion_tokens: Tokens that it wrote, or None.
        cost: What the requests cost in US dollars, or None where prices are not known.
        thoughts: Trained turns of all sessions by the outcome for their thoughts; see
            `thoughts.ThoughtReport`.
        settings: Further facts by name, such as the temperature.
    """

    environment: str
    model: str
    prompt: str
    min_reward: float
    filters: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    attempts: int | None = None
    cut_turns: int | None = None
    call_counts: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    thoughts: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


_TEXT = (
    "in AgentInstruct's shape, one split a task. `loss` is true on the "
    "turns to train, false on acknowledgements and demonstrations, null on human turns. "
    "`jsonl/` holds the same rows, `messages/` the same conversations as role and content,"
)
_MESSAGES = (
    "as `messages`, with `tools` in the OpenAI format if there are any, one split a task. `train` "
    "is true on the turns to train. `messages/` holds the same rows,"
)


def write_card(
    folder: Path, task: str, card: DatasetCard, rows: int, *, as_messages: bool = False
) -> None:
    """Write `card/<task>.json`, and the README of all tasks in the folder.

    Args:
        folder: Folder of the collection.
        task: AgentInstruct's name of the task, such as "db".
        card: Its card.
        rows: Number of its rows.
        as_messages: Whether they are in the `messages` format, not in AgentInstruct's.

    Raises:
        OSError: The folder cannot be written.
    """
    cards = folder / _CARDS
    cards.mkdir(exist_ok=True)
    # Not asdict: it cannot copy a Counter.
    content = {each.name: getattr(card, each.name) for each in fields(card)}
    content |= {name: dict(content[name]) for name in ("counts", "settings", "thoughts")}
    if calls := content.pop("call_counts"):
        content["call_counts"] = dict(calls)
    content |= {"task": task, "rows": rows} | ({"format": MESSAGES} if as_messages else {})
    replace_text(cards / f"{task}.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    entries = [json.loads(path.read_text("utf-8")) for path in sorted(cards.glob("*.json"))]
    replace_text(folder / "README.md", _readme(entries))


def _readme(entries: Sequence[Mapping[str, Any]]) -> str:
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for entry in entries:
        lines += [f"  - split: {entry['task']}", f"    path: data/{entry['task']}-*"]
    total = sum(entry["rows"] for entry in entries)
    lines += [
        "---",
        "",
        "# Collected agent trajectories",
        "",
        f"{total} conversations {_MESSAGES if _has_messages(entries) else _TEXT} "
        "`origins/` the task and reward of each row.",
    ]
    for entry in entries:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _has_messages(entries: Sequence[Mapping[str, Any]]) -> bool:
    return any(entry.get("format") == MESSAGES for entry in entries)


def _section(entry: Mapping[str, Any]) -> list[str]:
    counts = entry["counts"]
    dropped = {key: n for key, n in counts.items() if key not in ("played", "kept")}
    facts = {
        "Environment": entry["environment"],
        "Model": entry["model"],
        "Prompt": entry["prompt"],
        "Kept": f"reward of at least {entry['min_reward']:.4g}",
        "Further filters": ", ".join(entry["filters"]) or "none",
        "Tasks played": counts.get("played"),
        "Attempts played": entry.get("attempts"),
        "Trajectories kept": counts.get("kept"),
        **{f"Dropped: {reason}": number for reason, number in sorted(dropped.items())},
        "Turns cut at the token limit": entry.get("cut_turns"),
        **{CALLS[key]: n for key, n in entry.get("call_counts", {}).items()},
        "Rows": entry["rows"],
        "Tokens read": entry["prompt_tokens"],
        "Tokens written": entry["completion_tokens"],
        "Cost": _dollars(entry["cost"]),
        "Cost per kept trajectory": _dollars(_share(entry["cost"], counts.get("kept"))),
        **{THOUGHTS[key]: n for key, n in sorted(entry.get("thoughts", {}).items())},
        **entry["settings"],
    }
    known = {name: value for name, value in facts.items() if value is not None}
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in known.items()]
    return [f"## {entry['task']}", "", "| | |", "|---|---|", *rows]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _share(cost: float | None, kept: int | None) -> float | None:
    return cost / kept if cost is not None and kept else None


def _dollars(cost: float | None) -> str | None:
    return None if cost is None else f"${cost:.4f}"
