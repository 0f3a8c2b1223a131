"""One evaluation during training: within the time budget, with its transcripts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from dataset_builders.errors import ClusterError, EvaluatorError
from evaluators.evaluator import EvalResult, EvalTarget, Evaluator, Progress
from evaluators.models.fingerprint import fingerprint
from evaluators.results.evaluations import transcript_path
from evaluators.results.resume import open_journal
from evaluators.results.transcripts import Journal
from evaluators.runner import run_evaluator
from evaluators.training.shared_base import SharedBase, measure_once
from evaluators.training.time_budget import BudgetPlan, TimeBudget

LOG = logging.getLogger(__name__)

Heading = Mapping[str, str | int]
"""Heading of a transcript file: what was measured, of which weights, and how."""

_T = TypeVar("_T")

NO_TIME = "no time was left under max_time_share"

Plan = Mapping[str, tuple[int | None, int, Evaluator]]
"""By name: limit, remaining runs, evaluator."""


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """A training step at which evaluators run.

    Attributes:
        subject: The model.
        folder: The run's output folder.
        step: Optimizer step.
        steps: Optimizer steps of the whole run.
        shows: Whether to show progress.
    """

    subject: EvalTarget
    folder: Path
    step: int
    steps: int
    shows: bool

    def measure(
        self,
        evaluator: Evaluator,
        limit: int | None,
        budget: TimeBudget | None,
        plan: Plan,
        shared: SharedBase | None = None,
    ) -> EvalResult:
        """Run an evaluator on as many items as the budget allows.

        Args:
            evaluator: The evaluator.
            limit: Maximum number of items.
            budget: Time that evaluation may take; none: any.
            plan: All evaluators, for the budget.
            shared: Where its records at step 0 are shared with other runs, if they are.
        """
        heading = self._together(lambda: self._heading(evaluator))
        if shared is not None:
            path = transcript_path(self.folder, evaluator.name, self.step)
            measure = partial(self._measure, evaluator, limit, budget, plan, heading)
            return measure_once(shared, path, heading, self.subject, measure)
        return self._measure(evaluator, limit, budget, plan, heading)

    def _measure(
        self,
        evaluator: Evaluator,
        limit: int | None,
        budget: TimeBudget | None,
        plan: Plan,
        heading: Heading,
    ) -> EvalResult:
        if budget is None:
            return self._run(evaluator, limit, heading)[0]
        planned = {name: _planned(*each) for name, each in plan.items()}
        results: list[EvalResult] = []

        def part(number: int) -> int:
            result, fresh = self._run(evaluator, number, heading)
            results.append(result)
            return fresh

        journal = self._together(lambda: self._journal(evaluator, heading))
        finished = len([*takewhile(journal.finished.__contains__, evaluator.items())])
        agree = self._first_of_all
        done = budget.pace(planned, evaluator.name, self.step, self.steps, part, agree, finished)
        message = "%s: %d of %d items under max_time_share (evaluation %.1f s so far)"
        LOG.info(message, evaluator.name, done, planned[evaluator.name].items, budget.spent)
        if not results:
            LOG.warning("%s is skipped at step %d: %s", evaluator.name, self.step, NO_TIME)
            return unmeasured(evaluator, NO_TIME)
        return replace(results[-1], seconds=sum(result.seconds for result in results))

    def _first_of_all(self, number: int) -> int:
        return int(self.subject.gather([number])[0])

    def _run(
        self, evaluator: Evaluator, limit: int | None, heading: Heading
    ) -> tuple[EvalResult, int]:
        """Measure up to a number of items; also return how many were new."""
        journal = self._together(lambda: self._journal(evaluator, heading))
        before = set(journal.finished)
        try:
            result = self._together(
                lambda: _with_progress(evaluator, self.subject, self.shows, limit, journal)
            )
        finally:
            journal.close()
        return result, sum(record["item"] not in before for record in result.records)

    def _together(self, action: Callable[[], _T]) -> _T:
        """Run a function that may fail on one process, as by a full disk; all raise together."""
        failure: Exception | None = None
        try:
            made = action()
        except ClusterError:
            raise
        except Exception as error:
            if self.subject.world_size == 1:
                raise
            failure = error
        if self.subject.world_size > 1:
            failures = [failure and f"{type(failure).__name__}: {failure}"]
            others = [text for text in self.subject.gather(failures) if text]
            if failure is not None:
                raise failure
            if others:
                raise EvaluatorError(others[0])
        return made

    def _heading(self, evaluator: Evaluator) -> Heading:
        about = evaluator.about()
        weights = fingerprint(self.subject.model)
        return {"evaluator": evaluator.name, "step": self.step, "weights": weights, **about}

    def _journal(self, evaluator: Evaluator, heading: Heading) -> Journal:
        path = transcript_path(self.folder, evaluator.name, self.step)
        if self.subject.rank:
            # Only the first process writes; the others receive what it read.
            return Journal(path.with_suffix(f".rank-{self.subject.rank}"), heading)
        return open_journal(path, heading)


@dataclass(slots=True)
class StepResults:
    """Results of one step."""

    step: int = -1
    results: dict[str, EvalResult] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def at(self, step: int) -> StepResults:
        """Return itself, cleared if training has moved to another step."""
        if step != self.step:
            self.step, self.results, self.figures = step, {}, {}
        return self


def failed(evaluator: Evaluator, error: Exception) -> EvalResult:
    """Return the record of an evaluator that failed."""
    return unmeasured(evaluator, f"{type(error).__name__}: {error}")


def unmeasured(evaluator: Evaluator, reason: str) -> EvalResult:
    """Return the record of an evaluator that measured nothing."""
    return EvalResult.unmeasured(
        evaluator.name, reason, suite=evaluator.suite, primary=evaluator.primary
    )


def _planned(limit: int | None, runs: int, evaluator: Evaluator) -> BudgetPlan:
    number = len(evaluator.items())
    return BudgetPlan(number if limit is None else min(limit, number), runs)


def _with_progress(
    evaluator: Evaluator, subject: EvalTarget, show: bool, limit: int | None, journal: Journal
) -> EvalResult:
    if not show:
        return run_evaluator(evaluator, subject, limit=limit, journal=journal)
    from tqdm import tqdm

    with tqdm(desc=f"evaluating {evaluator.name}", leave=False) as bar:
        progress: Progress = _mover(bar)
        return run_evaluator(evaluator, subject, limit=limit, journal=journal, on_progress=progress)


def _mover(bar: object) -> Progress:
    def move(done: int, total: int) -> None:
        bar.total = total  # type: ignore[attr-defined]
        bar.update(done - bar.n)  # type: ignore[attr-defined]

    return move
