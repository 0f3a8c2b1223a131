"""What has to be the same in every form of a training section, measured on runs of its cells."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.training_cells import METHODS, Cell, sections
from tests.support.training_runs import Run

CURVES = Path(__file__).resolve().parents[1] / "assets/invariants/curves.json"
"""Loss curve of each section, by Axolotl 0.19; written by benchmarks/invariants.py --curves."""

STEPS, SAVE, KILL = 8, 2, (5, 0)
"""Optimizer steps; steps between checkpoints; step and micro batch, from 0, of a kill."""

Runs = Mapping[Cell, Run]


@dataclass(frozen=True)
class Check:
    """One measurement.

    Attributes:
        kind: What is compared: curve, cut or resume.
        cells: The runs that it needs; all are of one trainer and section.
        bar: Largest difference allowed.
        measure: Gives the largest difference; infinite if other rows were trained on.
    """

    kind: str
    cells: tuple[Cell, ...]
    bar: float
    measure: Callable[[tuple[Run, ...], str], float]

    @property
    def section_name(self) -> str:
        """What is trained on what."""
        return self.cells[0].section_name

    @property
    def name(self) -> str:
        """Trainer, section and kind."""
        rule = "-examples" if self.cells[0].rule == "examples" else ""
        return f"{self.cells[0].trainer}-{self.section_name}-{self.kind}{rule}"

    def value(self, runs: Runs) -> float:
        """Measure it on runs."""
        return self.measure(tuple(runs[cell] for cell in self.cells), self.section_name)


def reference() -> dict[str, Any]:
    """The stored curves."""
    found: dict[str, Any] = json.loads(CURVES.read_text("utf-8"))
    return found


def curve_check(trainer: str, method: str, packed: bool) -> Check:
    """The loss of each step against the stored curve, and against what the trainer logged."""
    return Check("curve", (Cell(trainer, method, packed, steps=STEPS),), 1e-4, _curve)


def _curve(runs: tuple[Run, ...], section: str) -> float:
    found, stored = runs[0].curve(), reference()["curves"][section]
    # The trainer's log is a float32 mean over processes.
    if len(found) != len(stored) or largest(found, runs[0].logged()) > 1e-5:
        return math.inf
    return largest(found, stored)


ALL_CUTS = ((4, 1), (1, 1), (1, 2))
"""Rows of a micro batch and number of processes, for a step of 4 rows."""


def cut_check(
    trainer: str,
    method: str,
    packed: bool,
    rule: str = "tokens",
    cuts: tuple[tuple[int, int], ...] = ALL_CUTS,
) -> Check:
    """The same batch in several cuts: rows and gradients of each step."""
    cells = tuple(Cell(trainer, method, packed, *cut, rule=rule, steps=3) for cut in cuts)
    return Check("cut", cells, 1e-5, _cut)


def _cut(runs: tuple[Run, ...], section: str) -> float:
    first, *others = runs
    rows = first.rows()
    if any(run.rows() != rows for run in others) or not rows:
        return math.inf
    pairs = itertools.product(rows, others)
    return max(difference(first.gradient(step), other.gradient(step)) for step, other in pairs)


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of two sets of named arrays; infinite if the names differ."""
    if one.keys() != other.keys() or not one:
        return math.inf
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def resume_check(trainer: str, method: str, packed: bool) -> Check:
    """Killed in the middle and started again: batches, losses and final weights, bit for bit."""
    whole = Cell(trainer, method, packed, steps=STEPS)
    killed = Cell(trainer, method, packed, steps=STEPS, save=SAVE, kill=KILL)
    return Check("resume", (whole, killed), 0.0, _resume)


def _resume(runs: tuple[Run, ...], section: str) -> float:
    whole, resumed = runs
    done = KILL[0] // SAVE * SAVE
    expected = [line for line in whole.batches() if line[0] >= done]
    if resumed.batches() != expected or not expected:
        return math.inf
    return max(
        largest(resumed.curve(), whole.curve()[done:]),
        difference(whole.weights(), resumed.weights()),
    )


def largest(one: list[float], other: list[float]) -> float:
    """The largest difference of two curves."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def all_checks(trainer: str) -> list[Check]:
    """The whole matrix of one trainer."""
    checks = [curve_check(trainer, *section) for section in sections()]
    checks += [resume_check(trainer, *section) for section in sections()]
    for method, packed in itertools.product(METHODS[:2], (False, True)):
        checks.append(cut_check(trainer, method, packed))
    # By examples, a micro batch has one row.
    checks += [
        cut_check(trainer, method, False, "examples", ALL_CUTS[1:]) for method in METHODS[:2]
    ]
    return checks


def cells_of(checks: list[Check]) -> list[Cell]:
    """The cells that checks need, each once."""
    return list(dict.fromkeys(cell for check in checks for cell in check.cells))
