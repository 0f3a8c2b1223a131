"""Trainer callback that logs the training loss of each source and agent task beside the total."""

from __future__ import annotations

import json
import logging
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from agenttuning_plugin.reports.source_loss import LOSS_FILE, read_losses
from agenttuning_plugin.training_data.source_loss_capture import (
    LossCapture,
    TokenLosses,
    is_dft,
    sum_by_cell,
)
from agenttuning_plugin.training_data.source_loss_groups import Index, TokenGroups
from dataset_builders.encoding.token_rows import IGNORE_INDEX
from dataset_builders.manifest.records import Batch
from evaluators.results.history import archive, best_effort_write

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

LOG = logging.getLogger("axolotl.agenttuning")

PREFIX = "loss/"
"""Prefix of the keys in the trainer's log, such as `loss/agent/os`."""


class SourceLoss(TrainerCallback):
    """Adds the loss of each source and agent task to the trainer's own training log.

    Each is the mean loss per trained token of the group since the last log, in nats, from the
    forward passes of training itself, over all processes. Sums stay on the device, are reduced over
    processes when the trainer logs, and are written to `loss_by_source.jsonl` with the number of
    tokens and with `part`, the group's part of the logged total: the parts of agent and general
    data add up to it. The training loss is unchanged to the bit.

    If the trainer's loss cannot be divided among tokens, or the tokens found are not those that the
    index of the rows has, one log line says so and nothing else is logged.

    Attributes:
        rows: What was logged, as in the file; the same on all processes.

    Args:
        trainer: Any Hugging Face Trainer, such as TRL's or Axolotl's, that reads the rows in order.
        groups: Groups of the rows' tokens.
        batch: How the trainer cuts the rows into steps.
    """

    def __init__(self, trainer: Trainer, groups: TokenGroups, batch: Batch) -> None:
        self._trainer: Any = trainer
        self._groups, self._batch = groups, batch
        self._capture: LossCapture | None = None
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Start to capture the losses of tokens; later lines of a resumed run are discarded."""
        self._uninstall()  # A search for the batch size begins again.
        self.rows = self._begin(state)
        problem = self._problem()
        if problem:
            self._say(problem)
            return
        self._logged, self._position = state.global_step, (state.global_step, 0)
        self._reset()
        self._install()

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Note which rows come next."""
        self._position = state.global_step, 0

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Restore the trainer."""
        self._uninstall()

    @property
    def _path(self) -> Path:
        return Path(self._trainer.args.output_dir or ".") / LOSS_FILE

    def _begin(self, state: Any) -> list[dict[str, Any]]:
        """Return the rows up to the step of a checkpoint, which remain in the file."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [[]]
        if state.is_world_process_zero:
            if state.global_step:
                rows = read_losses(self._path.parent)
                found = [[row for row in rows if row["step"] <= state.global_step]]
            best_effort_write(partial(_begin_file, self._path, found[0]), strict=False)
        broadcast_object_list(found)
        return list(found[0])

    def _problem(self) -> str:
        """Return why the loss cannot be divided among tokens, as far as settings tell."""
        trainer = self._trainer
        world = trainer.accelerator.num_processes
        if trainer.label_smoother is not None or (
            trainer.compute_loss_func and not is_dft(trainer)
        ):
            return "the trainer has a loss function of its own"
        if getattr(trainer.args, "torch_compile", False):
            return "the model is compiled together with its loss"
        if world != self._batch.world:
            return f"{world} processes share {self._batch.world} batches"
        if trainer._train_batch_size != self._batch.micro:
            return f"the batch size is {trainer._train_batch_size}, not {self._batch.micro}"
        return ""

    def _say(self, problem: str) -> None:
        if self._trainer.is_world_process_zero():
            LOG.warning("loss by source is not available: %s", problem)

    def _install(self) -> None:
        trainer = self._trainer
        self._capture = LossCapture(trainer.model, is_dft(trainer))
        self._compute_loss, self._log = trainer.compute_loss, trainer.log
        self._replaced = {name: vars(trainer).get(name) for name in ("compute_loss", "log")}
        trainer.compute_loss, trainer.log = self._computing, self._logging
        if function := trainer.compute_loss_func:
            self._replaced["compute_loss_func"] = function
            trainer.compute_loss_func = self._capture.loss_function(function)

    def _uninstall(self) -> None:
        if self._capture is None:
            return
        self._capture.remove()
        self._capture = None
        for name, before in self._replaced.items():
            if before is None:
                delattr(self._trainer, name)
            else:
                setattr(self._trainer, name, before)

    def _reset(self) -> None:
        import torch

        device = self._trainer.accelerator.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros((3, self._groups.num_cells), dtype=dtype, device=device)
        self._rows: list[Index] = []
        self._missed = 0  # micro-batches whose tokens could not be assigned to sources

    def _computing(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute a loss as the trainer does, and add it up by cell if it is of a training step."""
        labels = inputs.get("labels")
        arguments = {"num_items_in_batch": num_items_in_batch, "return_outputs": return_outputs}
        if not model.training or self._capture is None:
            return self._compute_loss(model, inputs, **arguments)
        with self._capture() as found:
            result = self._compute_loss(model, inputs, **arguments)
        rows = self._next_rows()
        layout = None if labels is None else self._groups.layout(rows, labels.shape)
        width = 0 if layout is None else layout.size
        if layout is None or not 0 < sum(len(each.losses) for each in found) <= width:
            self._missed += 1
        else:
            self._add(labels, layout, found, num_items_in_batch)
            self._rows.append(rows)
        return result

    def _next_rows(self) -> Index:
        """Return the numbers of the micro-batch's rows, as accelerate distributes them."""
        (step, micro), batch = self._position, self._batch
        self._position = step, micro + 1
        rank = self._trainer.accelerator.process_index
        number = (step * batch.accumulation + micro) * batch.world + rank
        rows: Index = number * batch.micro + np.arange(batch.micro)
        # The last batch is shorter, or filled up from the first rows among several processes.
        return rows[rows < len(self._groups)] if batch.world == 1 else rows % len(self._groups)

    def _add(self, labels: Any, layout: Any, found: list[TokenLosses], count: Any) -> None:
        import torch

        trainer, device = self._trainer, found[0].losses.device
        with torch.no_grad():
            cells = torch.from_numpy(np.ascontiguousarray(layout[:, 1:]).reshape(-1))
            targets = labels[:, 1:].reshape(-1).to(device) != IGNORE_INDEX
            sums, counts = sum_by_cell(
                found, targets, cells.to(device, non_blocking=True), self._groups.num_cells
            )
            if trainer.model_accepts_loss_kwargs and count is not None:
                divisor = count
            else:
                divisor = counts.sum().clamp(min=1) * trainer.current_gradient_accumulation_steps
                divisor = divisor * self._batch.world
            part = sums / torch.as_tensor(divisor, device=device)
            self._sums += torch.stack([sums, part, counts]).to(self._sums.device)

    def _logging(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log with the loss of each group, if this is the training log of a step."""
        if "loss" in logs and self._capture is not None:
            step = self._trainer.state.global_step
            groups = self._collect(step)
            logs |= {PREFIX + name: facts["loss"] for name, facts in groups.items()}
            if groups:
                self.rows.append({"step": step, "loss": logs["loss"], "groups": groups})
            if groups and self._trainer.is_world_process_zero():
                best_effort_write(partial(_append, self._path, self.rows[-1]), strict=False)
        self._log(logs, *args, **options)

    def _collect(self, step: int) -> dict[str, dict[str, float]]:
        """Return loss, tokens and part of each group since the last log, and begin anew."""
        sums, expected, missed = self._reduced()
        steps, self._logged = max(1, step - self._logged), step
        self._reset()
        spare = expected[0] - sums[2]
        if missed or (spare < 0).any() or (spare > expected[1]).any():
            self._say(
                "the trainer's loss gives no losses of tokens, as with a fused kernel"
                if missed
                else f"found {sums[2].sum():.0f} trained tokens where the rows have "
                f"{expected[0].sum():.0f}"
            )
            self._uninstall()
            return {}
        groups = {}
        for name, cells in zip(self._groups.names, self._groups.members, strict=True):
            loss, part, tokens = sums[:, cells].sum(axis=1).tolist()
            if tokens:
                found = {"loss": loss / tokens, "tokens": int(tokens), "part": part / steps}
                groups[name] = found
        return groups

    def _reduced(self) -> tuple[Any, Any, int]:
        """Return sums, expected counts and missed micro-batches over all processes."""
        import torch

        rows = np.concatenate(self._rows) if self._rows else np.zeros(0, np.int64)
        expected = torch.from_numpy(self._groups.counts(rows)).to(self._sums)
        missed = torch.full((1, self._groups.num_cells), float(self._missed)).to(self._sums)
        whole: Tensor = torch.cat([self._sums, expected, missed])
        whole = self._trainer.accelerator.reduce(whole, "sum")
        found = whole.cpu().numpy().astype(np.float64)
        return found[:3], found[3:5], int(found[5].max())


def _begin_file(path: Path, rows: list[dict[str, Any]]) -> None:
    """Keep the rows of a resumed run; archive the file of an earlier one."""
    if rows:
        path.write_text("".join(map(_line, rows)), "utf-8")
    else:
        archive(path)


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(row)) + "\n"
