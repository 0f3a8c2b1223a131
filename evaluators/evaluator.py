"""Interface of an evaluator, its records and its result.

An evaluator lists its items, measures some of them and aggregates the records. Everything else is
shared and lives in `runner`: which items, on which process, what was finished before, errors, time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from evaluators.models.answer_facts import answer_warning
from evaluators.models.target import EvalTarget
from evaluators.stats.aggregate import summarise
from evaluators.stats.intervals import Metric

__all__ = [
    "RECORDS_FILE",
    "EvalResult",
    "EvalTarget",
    "Evaluator",
    "Metric",
    "Progress",
    "Record",
    "Suite",
]

RECORDS_FILE = "evaluations.jsonl"
"""File in the trainer's output folder: one line per evaluation, figures and items."""

Record = dict[str, Any]
"""One item, JSON-ready. Always present: `item`; `scores`, numbers by name, {} where it could
not be measured; `error`, "" where it could. Where they apply: `weight` (tokens behind a mean
loss), `group` (for a mean of means), `turns`, `empty` and `cut` (numbers of the model's answers,
of empty ones and of those cut at the token limit), `messages` (the transcript: a list of
`{"role", "content"}`), `exit_reason`, `prompt` (which prompt template was used)."""

Suite = Literal["held-in", "held-out", "general", "replay", "own"]

Progress = Callable[[int, int], None]
"""Called with the number of finished items and of all items of this process."""


@dataclass(frozen=True, slots=True)
class EvalResult:
    """Result of one evaluator at one point.

    Attributes:
        evaluator: Name of the evaluator.
        metrics: Figures by name; empty if nothing could be measured.
        num_errors: Items that could not be measured; they are not in the figures.
        seconds: Wall-clock time it took.
        records: One per item, in the order of the items, so that two evaluations can be
            compared item by item.
        suite: The evaluator's.
        primary: Name of the main figure.
        about: What the figures depend on, such as the prompt template, backend or data.
        error: Why nothing was measured, in one line; "" if something was.
        macro: Whether figures are means of the means of groups.
        warning: Why the figures may be unreliable, in one line; "" if nothing was found.
    """

    evaluator: str
    metrics: dict[str, Metric]
    num_errors: int
    seconds: float
    records: tuple[Record, ...] = ()
    suite: str = "held-in"
    primary: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    macro: bool = False
    warning: str = ""

    @classmethod
    def unmeasured(
        cls, evaluator: str, reason: str, *, suite: str = "held-in", primary: str = ""
    ) -> EvalResult:
        """Return the result of an evaluator that measured nothing; the reason becomes one line."""
        line = " ".join(reason.split())
        return cls(evaluator, {}, 0, 0.0, suite=suite, primary=primary, error=line)

    def log(self) -> dict[str, float]:
        """Return keys and values for a trainer's log, such as `eval_database_success`."""
        flat: dict[str, float] = {}
        for name, metric in self.metrics.items():
            flat[f"eval_{self.evaluator}_{name}"] = metric.value
            if math.isfinite(metric.stderr):  # infinite for a single item; not JSON
                flat[f"eval_{self.evaluator}_{name}_stderr"] = metric.stderr
        if self.error:
            flat[f"eval_{self.evaluator}_failed"] = 1.0
        flat[f"eval_{self.evaluator}_num_errors"] = float(self.num_errors)
        flat[f"eval_{self.evaluator}_seconds"] = round(self.seconds, 2)
        return flat


class Evaluator(ABC):
    """Measures a model on items that are the same for every model.

    Attributes:
        name: Prefix of its figures in logs.
        suite: Name of the suite that its figures belong to.
        primary: Name of its main figure.
        needs_weights: Whether it needs the model itself; if not, a server's answers are enough.
        generates: Whether the model generates text; if not, a run takes seconds.
        macro: Whether figures are means of the groups' means.
    """

    name: str
    suite: Suite
    primary: str
    needs_weights: ClassVar[bool] = False
    generates: ClassVar[bool] = True
    macro: bool = False

    @abstractmethod
    def items(self) -> tuple[str, ...]:
        """Return the ids of all items, in the order in which a limit selects them.

        The order is fixed, so that evaluations with a limit measure the same items, and
        any prefix of it is a representative sample.
        """

    @abstractmethod
    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure some items; the model is in evaluation mode, without gradients.

        Every process of a distributed run calls this with its own items, possibly none, and may
        take any time: only `subject` may wait for other processes.

        Args:
            subject: The model.
            items: Those to measure, some of `items()`.
            finished: Called with every item's record as soon as it is complete, from the
                thread that called `measure`.
        """

    def about(self) -> dict[str, str]:
        """Return what the figures depend on besides the model, for the record of the score."""
        return {}

    def warning(self, records: Sequence[Record]) -> str:
        """Return why the figures may be unreliable: by default, mostly empty or truncated answers.

        Args:
            records: All records, including those with an error.
        """
        return answer_warning(records)

    def metrics(self, records: Sequence[Record]) -> dict[str, Metric]:
        """Aggregate the records that were measured; at least one."""
        return summarise(records, macro=self.macro)
