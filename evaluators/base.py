"""What an evaluator is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from evaluators.statistics import Metric

if TYPE_CHECKING:
    import torch

__all__ = ["RECORDS_FILE", "Evaluation", "Evaluator", "Metric", "Subject"]

RECORDS_FILE = "evaluations.jsonl"
"""File in the trainer's output folder: one line per evaluation, figures and items."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model to measure and the process group it lives in.

    Attributes:
        model: The bare `PreTrainedModel` or `PeftModel`: not wrapped for distribution.
        tokenizer: Its fast tokenizer, with the chat template it is trained with.
        end_of_turn: Tokens beside eos that end a turn.
        rank: Number of this process.
        world_size: Number of processes; items are divided among them.
        gather: Joins the lists of all processes; every process has to call it.
        autocast: Makes the precision context that the trainer computes in.
    """

    model: Any
    tokenizer: Any
    end_of_turn: tuple[str, ...] = ()
    rank: int = 0
    world_size: int = 1
    gather: Callable[[list[Any]], list[Any]] = field(default=lambda items: items)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def device(self) -> torch.device:
        """Where inputs have to be."""
        device: torch.device = self.model.device
        return device


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluator found at one point.

    Attributes:
        evaluator: Name of the evaluator.
        metrics: Figures by name.
        num_errors: Items that could not be measured; they are not in the figures.
        seconds: Wall-clock time it took.
        records: One JSON-ready object per item, in the order of the items, so that two
            evaluations can be compared item by item.
    """

    evaluator: str
    metrics: dict[str, Metric]
    num_errors: int
    seconds: float
    records: tuple[dict[str, Any], ...] = ()

    def log(self) -> dict[str, float]:
        """Keys and values for a trainer's log, such as `eval_database_success`."""
        flat: dict[str, float] = {}
        for name, metric in self.metrics.items():
            flat[f"eval_{self.evaluator}_{name}"] = metric.value
            flat[f"eval_{self.evaluator}_{name}_stderr"] = metric.stderr
        flat[f"eval_{self.evaluator}_num_errors"] = float(self.num_errors)
        flat[f"eval_{self.evaluator}_seconds"] = round(self.seconds, 2)
        return flat


class Evaluator(Protocol):
    """Measures a model.

    Attributes:
        name: Prefix of its figures in logs.
    """

    name: str

    def evaluate(
        self, subject: Subject, on_progress: Callable[[int, int], None] | None = None
    ) -> Evaluation:
        """Measure; leaves the model's state as it was.

        Args:
            subject: The model. With several processes, each calls this method.
            on_progress: Called with the number of finished items and of all items of
                this process.
        """
