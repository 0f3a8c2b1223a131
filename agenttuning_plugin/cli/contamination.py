"""`agenttuning contamination`: overlap of an evaluation set with training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dataset_builders.contamination.check import contamination
from dataset_builders.contamination.plain_texts import Text, TextReport, read_texts
from dataset_builders.contamination.report import CLEAN, DIRTY


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
        tokenizer: Folder or hub id; None compares words.
        longer_than: A shared span has more than this many tokens.
        skips: Tokens of a span that may differ.

    Returns:
        The report, JSON-ready, with the record counts of each source.

    Raises:
        ConfigError: A number is out of range, or the tokenizer is not a fast one.
        DataError: A source cannot be read, or has no text.
        SourceNotFoundError: There is no such source or tokenizer.
    """
    from agenttuning_plugin.evaluation.model_loading import load_tokenizer

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


def show(report: dict[str, Any], number: int, out: Console, err: Console) -> None:
    """Print a report as text.

    Args:
        report: From `check_contamination`.
        number: Samples to show, the most contaminated ones.
        out: Console of the report.
        err: Console of messages about records that could not be compared.
    """
    unit, total = report["unit"], report["samples"]
    meaning = {
        "dirty": f"{DIRTY:.0%} of the {unit}s or more contaminated",
        "not_dirty": "less than that",
        "not_clean": f"{CLEAN:.0%} or more contaminated",
        "clean": "less than that",
        "too_short": f"{report['longer_than']} {unit}s or fewer: always clean",
    }
    table = Table("", "samples", "", title=f"contamination, {total:,} samples")
    for name, text in meaning.items():
        share = f"{report[name] / total:.1%}"
        table.add_row(name.replace("_", " "), f"{report[name]:,} ({share})", text)
    out.print(table)
    found = sorted(report["found"], key=lambda item: -item["share"])
    for item in found[:number]:
        longest = item["longest"]
        line = f"{item['share']:.0%} {item['sample']}: {longest['tokens']} in {longest['record']}"
        text = " ".join(longest["text"].split())
        out.print(f"{line}: {text}", soft_wrap=True, markup=False, highlight=False)
    for source in (*report["sources"]["training"], *report["sources"]["evaluation"]):
        lines = [f"skipped {count:,} records: {name}" for name, count in source["skipped"].items()]
        for line in [*lines, *source["lost"]]:
            err.print(f"{source['source']}: {line}", soft_wrap=True, markup=False)
