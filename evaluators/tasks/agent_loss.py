"""Loss on held-out agent trajectories, by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.evaluator import EvalTarget, Record, Suite
from evaluators.stats.aggregate import summarise
from evaluators.tasks.general_loss import GeneralLossEvaluator

if TYPE_CHECKING:
    from datasets import Dataset

Watch = Callable[[Mapping[str, float]], str]
"""Given the loss of each task, returns a warning, or "" for none."""


class AgentLossEvaluator(GeneralLossEvaluator):
    """Mean cross-entropy per trained token, in nats, over held-out agent trajectories.

    Figures: `loss` over all, and `loss_TASK` of each task.

    Args:
        rows: Held-out rows with `input_ids` and `labels`, each (T,), as `encode_dataset`
            makes them.
        tasks: Name of each row's task; "" without one.
        name: Prefix of the figures in logs.
        watch: Called with the losses of each evaluation, by task ("" without tasks).

    Raises:
        ConfigError: There are no rows.
    """

    suite: Suite = "own"

    def __init__(
        self,
        rows: Dataset | Sequence[Mapping[str, Any]],
        tasks: Sequence[str],
        name: str = "agent",
        watch: Watch | None = None,
    ) -> None:
        super().__init__(rows, name)
        self._tasks = tuple(tasks)
        self._watch = watch

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure the loss; see `Evaluator.measure`."""

        def with_task(record: Record) -> None:
            task = self._tasks[int(record["item"])]
            if record["scores"] and task:
                scores = {**record["scores"], f"loss_{task}": record["scores"]["loss"]}
                record = {**record, "scores": scores}
            finished(record)

        super().measure(subject, items, with_task)

    def warning(self, records: Sequence[Record]) -> str:
        """Return the warning of `watch` about these losses."""
        figures = summarise([record for record in records if record["scores"]])
        if self._watch is None or not figures:
            return ""
        tasks = {
            name.removeprefix("loss_"): figure.value
            for name, figure in figures.items()
            if name != "loss"
        }
        return self._watch(tasks or {"": figures["loss"].value})
