"""Paired comparison of two evaluations of the same tasks, or of a run with its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError
from evaluators.results.evaluations import read_evaluations
from evaluators.stats.paired import is_loss

if TYPE_CHECKING:
    from evaluators.stats.paired import Change

Row = Mapping[str, Any]

_WORDS = {"success": "success", "valid_format": "format", "action_match": "actions"}
_BESIDE = ("valid_format",)
"""Figures that a run's table shows in addition to an evaluator's main figure."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one evaluator in both evaluations.

    Attributes:
        evaluator: Its name.
        figure: Name of the score.
        change: Second against first over the tasks that both measured.
        only: Number of tasks measured only by the first and only by the second.
        differs: Settings in which the two differ, such as the prompt template.
        suite: The evaluator's suite, such as "held-in".
        percent: Whether the figure is a share.
    """

    evaluator: str
    figure: str
    change: Change
    only: tuple[int, int]
    differs: tuple[str, ...]
    suite: str
    percent: bool

    @property
    def label(self) -> str:
        """Its name in a table."""
        return f"{self.evaluator} {_WORDS.get(self.figure, self.figure)}"

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "evaluator": self.evaluator,
            "figure": self.figure,
            **asdict(self.change),
            "only_first": self.only[0],
            "only_second": self.only[1],
            "differs": list(self.differs),
        }


def pick(folder: Path, step: int | None, *, last: bool = True) -> dict[str, Row]:
    """Return the evaluations of one step of a folder, by evaluator.

    Args:
        folder: Output folder of `agenttuning evaluate` or of a training run.
        step: The step; by default each evaluator's last one, or first one.
        last: Which of the two.

    Raises:
        SourceNotFoundError: The folder holds no evaluation.
        DataError: A line has another format.
        ConfigError: Nothing was measured at that step.
    """
    found: dict[str, Row] = {}
    rows = read_evaluations(folder)
    for row in rows:
        if step is None and not last and row["evaluator"] in found:
            continue
        if step is None or row["step"] == step:
            found[row["evaluator"]] = row
    if not found:
        steps = sorted({row["step"] for row in rows})
        raise ConfigError(f"{folder}: step: found {step}, expected one of {steps}")
    return found


def compare_evaluations(
    first: Mapping[str, Row], second: Mapping[str, Row], *, every_figure: bool = False
) -> list[Compared]:
    """Compare the evaluators that both measured.

    Args:
        first: Evaluations by evaluator.
        second: Likewise.
        every_figure: All figures of an evaluator, not only its main one.

    Raises:
        ConfigError: No task was measured in both.
    """
    compared = []
    for name in [name for name in first if name in second]:
        figures = list(second[name]["metrics"]) if every_figure else [primary_of(second[name])]
        for figure in figures:
            if made := _compare(name, figure, first[name], second[name]):
                compared.append(made)
    if not compared:
        common = [name for name in first if name in second]
        reasons = "; ".join(f"{name}: {_why_apart(first[name], second[name])}" for name in common)
        raise ConfigError(
            f"nothing to compare: the first has {_names(first)}, the second {_names(second)}, "
            "expected tasks that both measured" + (f" ({reasons})" if reasons else "")
        )
    return compared


def compare_run(evaluations: Sequence[Row]) -> list[Compared]:
    """Compare each evaluator's baseline, measured at step 0, with its last evaluation."""
    compared = []
    for name in dict.fromkeys(row["evaluator"] for row in evaluations):
        rows = [row for row in evaluations if row["evaluator"] == name and row["metrics"]]
        if not rows or rows[0]["step"] != 0:
            continue
        base, tuned = rows[0], rows[-1]
        for figure in (primary_of(tuned), *_BESIDE):
            measured = figure in base["metrics"] and figure in tuned["metrics"]
            if measured and (made := _compare(name, figure, base, tuned)):
                compared.append(made)
    return compared


def unmeasured(evaluations: Sequence[Row]) -> list[str]:
    """Return what could not be measured at all, and why, one line each."""
    measured = {row["evaluator"] for row in evaluations if row["metrics"]}
    reasons = {
        row["evaluator"]: row.get("error", "")
        for row in evaluations
        if row["evaluator"] not in measured
    }
    return [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in reasons.items()]


def primary_of(row: Row) -> str:
    """Return the name of an evaluation's main figure; "" if nothing was measured."""
    return str(row.get("primary") or next(iter(row["metrics"]), ""))


def _names(rows: Mapping[str, Row]) -> str:
    return ", ".join(rows) or "nothing"


def _compare(name: str, figure: str, first: Row, second: Row) -> Compared | None:
    from evaluators.stats.paired import paired_change

    before, after = _scored(first, figure), _scored(second, figure)
    common = before.keys() & after.keys()
    if not common:
        return None
    change = paired_change(
        list(before.values()), list(after.values()), figure, macro=is_macro(first, figure)
    )
    abouts = dict(first.get("about") or {}), dict(second.get("about") or {})
    differs = tuple(
        sorted(
            key
            for key in abouts[0].keys() | abouts[1].keys()
            if abouts[0].get(key) != abouts[1].get(key)
        )
    )
    only = len(before) - len(common), len(after) - len(common)
    suite = str(second.get("suite", ""))
    return Compared(name, figure, change, only, differs, suite, _is_share(figure, before, after))


def _is_share(figure: str, *records: Mapping[str, Row]) -> bool:
    values = [record["scores"][figure] for each in records for record in each.values()]
    return not is_loss(figure) and all(0.0 <= value <= 1.0 for value in values)


def _why_apart(first: Row, second: Row) -> str:
    """Return why two evaluations of an evaluator have no task in common, in one line."""
    about = [dict(row.get("about") or {}) for row in (first, second)]
    keys = sorted(key for key in {**about[0], **about[1]} if about[0].get(key) != about[1].get(key))
    parts = [
        f"{key} is {' and '.join(str(each.get(key, 'not set')) for each in about)}" for key in keys
    ]
    for row, word in ((first, "first"), (second, "second")):
        measured = [record["item"] for record in row["records"] if record["scores"]]
        shown = f", such as {measured[0]}" if measured else ""
        parts.append(f"the {word} measured {len(measured)} of {len(row['records'])} items{shown}")
    return ", ".join(parts)


def _scored(row: Row, figure: str) -> dict[str, Row]:
    return {record["item"]: record for record in row["records"] if figure in record["scores"]}


def is_macro(row: Row, figure: str) -> bool:
    """Whether the figure is a mean of the groups' means, inferred from its records."""
    from evaluators.stats.aggregate import summarise

    records = list(_scored(row, figure).values())
    if figure not in row["metrics"] or not any(record.get("group") for record in records):
        return False
    value = row["metrics"][figure].value
    plain, grouped = (summarise(records, macro=macro)[figure].value for macro in (False, True))
    return bool(abs(grouped - value) < abs(plain - value))


def warnings(compared: Sequence[Compared]) -> list[str]:
    """Return what limits the comparability of the two, one line each."""
    lines = []
    for row in compared:
        if row.differs:
            verb = "differ" if len(row.differs) > 1 else "differs"
            lines.append(
                f"{row.evaluator}: measured differently: {' and '.join(row.differs)} {verb}"
            )
        if any(row.only):
            lines.append(
                f"{row.evaluator} {row.figure}: {row.only[0]} tasks only in the first and "
                f"{row.only[1]} only in the second are left out: the first measured "
                f"{row.change.n + row.only[0]}, the second {row.change.n + row.only[1]}"
            )
    return list(dict.fromkeys(lines))


def recorded_warnings(second: Mapping[str, Row]) -> list[str]:
    """Return the warnings of evaluations, one line each.

    Args:
        second: Evaluations by evaluator.
    """
    return [
        f"{name}: step {row['step']}: {row['warning']}"
        for name, row in second.items()
        if row.get("warning")
    ]


def unpaired(
    first: Mapping[str, Row], second: Mapping[str, Row], compared: Sequence[Compared]
) -> list[str]:
    """Return evaluators that are not in the comparison, and why, one line each.

    Args:
        first: Evaluations by evaluator.
        second: Likewise.
        compared: The comparison.
    """
    lines = []
    for name in dict.fromkeys((*first, *second)):
        if any(row.evaluator == name for row in compared):
            continue
        lacking = [
            word
            for word, rows in (("first", first), ("second", second))
            if not rows.get(name, {}).get("metrics")
        ]
        if lacking:
            lines.append(f"{name}: not measured in the {' and the '.join(lacking)}")
        else:
            lines.append(f"{name}: no task in common: {_why_apart(first[name], second[name])}")
    return lines


def flips(compared: Sequence[Compared], most: int) -> list[str]:
    """List the changed tasks by evaluator, up to a number of improved and of regressed ones."""
    lines = []
    for row in compared:
        for word, items in (("better", row.change.better), ("worse", row.change.worse)):
            if items:
                more = f" and {len(items) - most} more" if len(items) > most else ""
                listed = ", ".join(items[:most])
                lines.append(f"{row.evaluator} {row.figure} {word} ({len(items)}): {listed}{more}")
    return lines
