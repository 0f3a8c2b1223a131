"""Every evaluator's figures by arm, with paired differences against a reference arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agenttuning_plugin.reports.compare import is_macro, primary_of
from agenttuning_plugin.reports.runs.arms import Arm
from agenttuning_plugin.reports.runs.read import BASE, Row, Run
from dataset_builders.errors import ConfigError
from evaluators.stats.replicated import Replicated, holm, replicated_change, replicated_mean

_ITEMS = ("data", "tasks", "sets")
"""What an evaluation's `about` says of its items: where it differs, equal ids are other items."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one arm.

    Attributes:
        arm: The arm's label.
        mean: Over its runs; None if no run measured it.
        change: Paired difference from the reference; None for the reference itself and where
            there is nothing to pair.
        p_holm: Its p value, adjusted for the number of arms that the figure compares; or None.
    """

    arm: str
    mean: Replicated | None
    change: Replicated | None = None
    p_holm: float | None = None


@dataclass(slots=True)
class Figure:
    """One figure of an evaluator over all arms.

    Attributes:
        evaluator: Its name.
        score: Name of the score.
        suite: The evaluator's suite.
        percent: Whether it is a share.
        cells: By arm, in order.
        remarks: What limits the comparison, one line each.
    """

    evaluator: str
    score: str
    suite: str
    percent: bool
    cells: list[Cell] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name such as "database.success"."""
        return f"{self.evaluator}.{self.score}"

    @property
    def title(self) -> str:
        """Heading such as "database success"; "general_kl", not "general_kl kl"."""
        words = self.evaluator.split("_")
        return self.evaluator if words[-1] == self.score else f"{self.evaluator} {self.score}"


def figures_of(
    arms: Sequence[Arm], reference: Arm | None, wanted: Sequence[str] = (), *, every: bool = False
) -> list[Figure]:
    """Return the figures of all arms and their differences from the reference.

    Args:
        arms: The arms, the reference among them unless it is the base.
        reference: The arm to compare with; None for the base, measured before each run.
        wanted: Names of figures, "evaluator" for its main one or "evaluator.score"; by default
            every evaluator's main figure.
        every: All scores of every evaluator instead.

    Raises:
        ConfigError: A figure was not measured; names those that were.
    """
    rows = [row for arm in arms for run in arm.runs for row in run.end.values() if row["metrics"]]
    main = {(str(row["evaluator"]), _main_score(row)): row for row in rows}
    scores = {(str(row["evaluator"]), score): row for row in rows for score in row["metrics"]}
    chosen = dict(scores if every else main)
    if wanted:
        chosen.clear()
        for name in wanted:
            found = {k: v for k, v in main.items() if k[0] == name}
            found = found or {k: v for k, v in scores.items() if ".".join(k) == name}
            if not found:
                known = ", ".join(".".join(key) for key in scores)
                raise ConfigError(f"`figure`: found {name!r}, expected one of {known}")
            chosen |= found
    return [_figure(name, score, row, arms, reference) for (name, score), row in chosen.items()]


def _main_score(row: Row) -> str:
    score = primary_of(row)
    return score if score in row["metrics"] else str(next(iter(row["metrics"])))


def _figure(
    evaluator: str, score: str, row: Row, arms: Sequence[Arm], reference: Arm | None
) -> Figure:
    macro = bool(row.get("macro")) or is_macro(row, score)
    made = Figure(evaluator, score, str(row.get("suite", "")), _is_share(arms, evaluator, score))
    if base := _base(arms, evaluator, score, macro, made):
        made.cells.append(Cell(BASE, base))
    for arm in arms:
        made.remarks += [line for run in arm.runs for line in _faults(run, evaluator, score)]
        rows = [run.end[evaluator] for run in arm.runs if _measured(run.end, evaluator, score)]
        mean = _mean(rows, score, macro, arm.label, made)
        change = None
        if mean and arm is not reference:
            change = _change(arm, reference, evaluator, score, macro, made)
        made.cells.append(Cell(arm.label, mean, change))
    adjusted = holm([cell.change.p_value for cell in made.cells if cell.change])
    for place, cell in enumerate(made.cells):
        if cell.change:
            made.cells[place] = replace(cell, p_holm=adjusted.pop(0))
    made.remarks = list(dict.fromkeys(made.remarks))
    return made


def _mean(
    rows: Sequence[Row], score: str, macro: bool, label: str, figure: Figure
) -> Replicated | None:
    if not rows:
        return None
    _note_differences(rows, label, figure)
    same = _same_items(rows)
    mean = replicated_mean([row["records"] for row in rows], score, macro=macro, same_items=same)
    if mean.left_out:
        figure.remarks.append(
            f"{label}: {mean.left_out} items that not all runs measured are left out"
        )
    return mean


def _change(
    arm: Arm, reference: Arm | None, evaluator: str, score: str, macro: bool, figure: Figure
) -> Replicated | None:
    """Return the paired difference of an arm from the reference; None, with a remark, if none."""
    pairs = [
        (old, run.end[evaluator])
        for old, run in _pairs(arm, reference, evaluator, score, figure)
        if _measured(run.end, evaluator, score)
    ]
    if not pairs:
        return None
    for old, new in pairs:
        if not _same_items([old, new]):
            named = [
                {key: (row.get("about") or {}).get(key) for key in _ITEMS} for row in (old, new)
            ]
            keys = [key for key in _ITEMS if named[0][key] != named[1][key]]
            values = "; ".join(f"{key} is {named[0][key]} and {named[1][key]}" for key in keys)
            figure.remarks.append(f"{arm.label}: not compared, other items: {values}")
            return None
        _note_differences([old, new], arm.label, figure)
    try:
        return replicated_change(
            [old["records"] for old, _ in pairs],
            [new["records"] for _, new in pairs],
            score,
            macro=macro,
            same_items=_same_items([row for pair in pairs for row in pair]),
        )
    except ValueError as error:
        figure.remarks.append(f"{arm.label}: not compared: {error}")
        return None


def _pairs(
    arm: Arm, reference: Arm | None, evaluator: str, score: str, figure: Figure
) -> Iterator[tuple[Row, Run]]:
    """Yield each run of an arm with the evaluation that it is compared with.

    That is its own start for the base, otherwise the reference's run with the same seed; without
    a common seed, of the same place; and for each run the only one of an untrained reference.
    """
    if reference is None:
        for run in arm.runs:
            if _measured(run.start, evaluator, score):
                yield run.start[evaluator], run
        return
    others = [run for run in reference.runs if _measured(run.end, evaluator, score)]
    if len(others) == 1 and not others[0].settings:
        yield from ((others[0].end[evaluator], run) for run in arm.runs)
        return
    seeds = [run.seed for run in others]
    if common := [run for run in arm.runs if run.seed is not None and run.seed in seeds]:
        if left := [run.name for run in arm.runs if run not in common]:
            figure.remarks.append(f"{', '.join(left)}: no run of {reference.label} with this seed")
        for run in common:  # A pooled arm has several runs of a seed, in the same order.
            if run.seed in seeds:
                place = seeds.index(run.seed)
                seeds[place] = None
                yield others[place].end[evaluator], run
        return
    if others:
        figure.remarks.append(
            f"{arm.label}: no seed in common with {reference.label}: runs are paired in order"
        )
    for other, run in zip(others, arm.runs, strict=False):
        yield other.end[evaluator], run


def _base(
    arms: Sequence[Arm], evaluator: str, score: str, macro: bool, figure: Figure
) -> Replicated | None:
    """Return the base's figure from the evaluations before training, equal ones counted once."""
    runs = [run for arm in arms for run in arm.runs]
    rows = [run.start[evaluator] for run in runs if _measured(run.start, evaluator, score)]
    if any(arm.label == BASE for arm in arms):
        return None  # measured by itself
    if not _same_items(rows):
        figure.remarks.append(f"{BASE}: measured on other items in some arms: no common figure")
        return None
    distinct: list[Row] = []
    for row in rows:
        scores = [record["scores"] for record in row["records"]]
        if all(scores != [each["scores"] for each in other["records"]] for other in distinct):
            distinct.append(row)
    return _mean(distinct, score, macro, BASE, figure)


def _measured(rows: Mapping[str, Row], evaluator: str, score: str) -> bool:
    return score in rows.get(evaluator, {}).get("metrics", {})


def _faults(run: Run, evaluator: str, score: str) -> Iterator[str]:
    """Yield why a run has no figure, or an unreliable one."""
    row = run.end.get(evaluator, {})
    if not _measured(run.end, evaluator, score):
        reason = str(row.get("error", "")).removeprefix(f"{evaluator}: ")
        yield f"{run.name}: not measured" + (f": {reason}" if reason else "")
    elif row.get("warning"):
        yield f"{run.name}: {row['warning']}"


def _same_items(rows: Sequence[Row]) -> bool:
    abouts = [{key: (row.get("about") or {}).get(key) for key in _ITEMS} for row in rows]
    return all(about == abouts[0] for about in abouts[1:])


def _note_differences(rows: Sequence[Row], label: str, figure: Figure) -> None:
    """Add a remark on settings in which evaluations differ, such as the prompt template."""
    abouts: list[dict[str, Any]] = [dict(row.get("about") or {}) for row in rows]
    keys = dict.fromkeys(key for about in abouts for key in about)
    differs = [key for key in keys if any(a.get(key) != abouts[0].get(key) for a in abouts[1:])]
    if differs:
        figure.remarks.append(f"{label}: measured differently: {' and '.join(differs)}")


def _is_share(arms: Sequence[Arm], evaluator: str, score: str) -> bool:
    from evaluators.stats.paired import is_loss

    values = [
        record["scores"][score]
        for arm in arms
        for run in arm.runs
        for record in run.end.get(evaluator, {}).get("records", ())
        if score in record["scores"]
    ]
    return not is_loss(score) and bool(values) and all(0.0 <= value <= 1.0 for value in values)
