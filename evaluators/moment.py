"""One evaluation inside training: within the budget, with its transcripts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluators.base import Evaluation, Evaluator, Progress, Subject
from evaluators.budget import Planned, TimeBudget
from evaluators.journal import Journal
from evaluators.results_file import transcript_path

_GROWTH = 8
"""A few items tell little of what many at once take: so much more is tried at a time."""

Plan = Mapping[str, tuple[int | None, int, Evaluator]]
"""By name: limit, runs that are still to come, evaluator."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of training at which something is measured.

    Attributes:
        subject: The model.
        folder: The run's output folder.
        step: Optimizer step.
        steps: Optimizer steps of the whole run.
        shows: Whether to show progress.
    """

    subject: Subject
    folder: Path
    step: int
    steps: int
    shows: bool

    def measure(
        self, evaluator: Evaluator, limit: int | None, budget: TimeBudget | None, plan: Plan
    ) -> Evaluation:
        """Measure with an evaluator, on as many items as there is time for."""
        if budget is None:
            return self._run(evaluator, limit)
        planned = {name: _planned(*each) for name, each in plan.items()}
        result: Evaluation | None = None
        while True:
            number = self._agreed(budget, planned, evaluator.name)
            done = len(result.records) if result else 0
            if done:
                number = min(number, _GROWTH * done)
            if number <= done:
                break
            begun = time.monotonic()
            result = self._run(evaluator, number)
            budget.took(evaluator.name, number - done, time.monotonic() - begun)
        if result is None:
            return _unmeasured(evaluator, "no time was left under max_time_share")
        return result

    def _agreed(self, budget: TimeBudget, planned: dict[str, Planned], name: str) -> int:
        """The first process's choice: clocks differ."""
        chosen = budget.choose(planned, [name], self.step, self.steps)[name]
        return int(self.subject.gather([chosen])[0])

    def _run(self, evaluator: Evaluator, limit: int | None) -> Evaluation:
        heading = {"evaluator": evaluator.name, "step": self.step, **evaluator.about()}
        path = transcript_path(self.folder, evaluator.name, self.step)
        journal = Journal(path, heading)
        try:
            return _with_progress(evaluator, self.subject, self.shows, limit, journal)
        finally:
            journal.close()


def failed(evaluator: Evaluator, error: Exception) -> Evaluation:
    """What is recorded of an evaluator that broke."""
    return _unmeasured(evaluator, " ".join(f"{type(error).__name__}: {error}".split()))


def _unmeasured(evaluator: Evaluator, reason: str) -> Evaluation:
    return Evaluation(
        evaluator.name,
        {},
        0,
        0.0,
        suite=evaluator.suite,
        primary=evaluator.primary,
        error=reason,
    )


def _planned(limit: int | None, runs: int, evaluator: Evaluator) -> Planned:
    number = len(evaluator.items())
    return Planned(number if limit is None else min(limit, number), runs)


def _with_progress(
    evaluator: Evaluator, subject: Subject, show: bool, limit: int | None, journal: Journal
) -> Evaluation:
    if not show:
        return evaluator.evaluate(subject, limit=limit, journal=journal)
    from tqdm import tqdm

    with tqdm(desc=f"evaluating {evaluator.name}", leave=False) as bar:
        progress: Progress = _mover(bar)
        return evaluator.evaluate(subject, progress, limit=limit, journal=journal)


def _mover(bar: object) -> Progress:
    def move(done: int, total: int) -> None:
        bar.total = total  # type: ignore[attr-defined]
        bar.update(done - bar.n)  # type: ignore[attr-defined]

    return move
