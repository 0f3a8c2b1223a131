"""Warning when an agent task's held-out loss rises while its training loss falls.

Agent data are few and repeated often at eta 0.2, so they are what a run overfits first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from agenttuning_plugin.reports.source_loss import loss_between
from agenttuning_plugin.training_data.source_loss_groups import task_name
from evaluators.results.evaluations import lines_of, parse_row

if TYPE_CHECKING:
    from transformers import Trainer

    from agenttuning_plugin.training_data.source_loss import SourceLoss


class OverfitWatch(TrainerCallback):
    """Compares the held-out loss of each task over the last evaluations with its training loss.

    Warns if the held-out loss rose in each of the last `patience` evaluations while the training
    loss fell: its mean per trained token between the last two of them against that before or after
    the first. Where the training loss is not logged by source, the held-out loss decides alone.

    Args:
        trainer: The trainer.
        patience: Number of evaluations in a row.
        evaluator: Name of the evaluator whose losses these are, for a resumed run.
        training: What logs the training loss by source, or none.
    """

    def __init__(
        self,
        trainer: Trainer,
        patience: int,
        evaluator: str = "agent",
        training: SourceLoss | None = None,
    ) -> None:
        self._trainer: Any = trainer
        self._patience, self._evaluator, self._training = patience, evaluator, training
        self._seen: list[tuple[int, Mapping[str, float]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Forget earlier evaluations, or read those of a resumed run, identically on every rank."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [[]]
        if state.global_step and state.is_world_process_zero:
            found = [self._recorded(state.global_step)]
        broadcast_object_list(found)
        self._seen = found[0]

    def __call__(self, losses: Mapping[str, float]) -> str:
        """Return a warning that names the tasks that are overfitted at this step, or "".

        Args:
            losses: Held-out loss by task; "" is all agent data without tasks.
        """
        step = self._trainer.state.global_step
        self._seen = [each for each in self._seen if each[0] != step] + [(step, losses)]
        window = self._seen[-self._patience - 1 :]
        if len(window) <= self._patience:
            return ""
        lines = (self._overfits(task, window) for task in losses)
        return "; ".join(line for line in lines if line)

    def _overfits(self, task: str, window: list[tuple[int, Mapping[str, float]]]) -> str:
        held = [losses.get(task, math.nan) for _, losses in window]
        if not all(before < after for before, after in pairwise(held)):
            return ""
        found = (
            f"overfitting of {task or 'agent data'}: its held-out loss rose in {self._patience} "
            f"evaluations in a row, from {held[0]:.4f} to {held[-1]:.4f}"
        )
        steps = [step for step, _ in self._seen[-len(window) - 1 :]]
        *before, after = [self._trained(task, *each) for each in pairwise(steps)]
        known = [loss for loss in before if loss is not None]
        if not known or after is None:
            return found
        if after >= known[0]:
            return ""
        return f"{found}, while its training loss fell from {known[0]:.4f} to {after:.4f}"

    def _trained(self, task: str, start: int, end: int) -> float | None:
        rows = self._training.rows if self._training else []
        return loss_between(rows, f"agent/{task_name(task)}" if task else "agent", start, end)

    def _recorded(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Read the held-out losses up to a step from the run's evaluations."""
        rows = map(parse_row, lines_of(Path(self._trainer.args.output_dir or ".")))
        found = []
        for row in rows:
            if not row or row["evaluator"] != self._evaluator or row["step"] > step:
                continue
            values = {name: each["value"] for name, each in row.get("metrics", {}).items()}
            tasks = {n.removeprefix("loss_"): v for n, v in values.items() if n != "loss"}
            if values:
                found.append((row["step"], tasks or {"": values["loss"]}))
        return found
