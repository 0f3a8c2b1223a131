"""The command `agenttuning contamination`: what of an evaluation set is in training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dataset_builders.contamination import contamination
from dataset_builders.contamination_report import CLEAN, DIRTY
from dataset_builders.plain_texts import Text, TextReport, read_texts


def check_contamination(
    training: Sequence[str],
    evaluation: Sequence[str],
    *,
    fields: Sequence[str] = (),
    tokenizer: str | None = None,
    longer_than: int = 10,
    skips: int = 4,
) -> dict[str, Any]:
    """Compare training sources with evaluation sets.

    Args:
        training: Files, folders or hub ids.
        evaluation: Files, folders or hub ids.
        fields: Fields of an evaluation record to compare; all if empty.
        tokenizer: Folder or hub id; words are compared if left out.
        longer_than: Tokens that a shared span has more than.
        skips: Tokens of a span that may differ.

    Returns:
        The report, JSON-ready, with what became of the records of each source.

    Raises:
        ConfigError: A number is out of range, or the tokenizer is not a fast one.
        DataError: A source cannot be read, or has no text.
        SourceNotFoundError: There is no such source or tokenizer.
    """
    from agenttuning_plugin.models import load_tokenizer

    loaded = load_tokenizer(tokenizer) if tokenizer else None
    sources: dict[str, list[TextReport]] = {"training": [], "evaluation": []}
    report = contamination(
        _texts(training, (), sources["training"]),
        _texts(evaluation, fields, sources["evaluation"]),
        tokenizer=loaded,
        longer_than=longer_than,
        skips=skips,
    )
    accounts = {name: [item.to_dict() for item in items] for name, items in sources.items()}
    return {**report.to_dict(), "sources": accounts}


def _texts(
    paths: Sequence[str], fields: Sequence[str], reports: list[TextReport]
) -> Iterator[Text]:
    for path in paths:
        reports.append(TextReport(path))
        yield from read_texts(path, reports[-1], fields)


def summary(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table for people."""
    total = report["samples"]
    meaning = {
        "dirty": f"{DIRTY:.0%} and more of the {report['unit']}s contaminated",
        "not_dirty": "less",
        "not_clean": f"{CLEAN:.0%} and more",
        "clean": "less",
        "too_short": f"of them with {report['longer_than']} {report['unit']}s or fewer",
    }
    return [
        (f"{name.replace('_', ' ')} ({text})", f"{report[name]:,} of {total:,}")
        for name, text in meaning.items()
    ]


def worst(report: dict[str, Any], number: int) -> list[str]:
    """A line for each of the most contaminated samples, worst first."""
    found = sorted(report["found"], key=lambda item: -item["share"])
    return [
        f"{item['share']:.0%} {item['sample']}: {item['longest']['tokens']} in "
        f"{item['longest']['record']}: {' '.join(item['longest']['text'].split())}"
        for item in found[:number]
    ]


def unread(report: dict[str, Any]) -> list[str]:
    """A line for each source of which something was not compared."""
    lines: list[str] = []
    for source in (*report["sources"]["training"], *report["sources"]["evaluation"]):
        skipped = [f"{name} {count:,}" for name, count in source["skipped"].items()]
        if skipped or source["lost"]:
            what = "; ".join([*([f"skipped {', '.join(skipped)}"] if skipped else []),
                              *source["lost"][:3]])  # fmt: skip
            lines.append(f"{source['source']}: {what}")
    return lines
