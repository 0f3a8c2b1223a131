"""Evaluation through a server during training, in a side process."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import deque
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from agenttuning_plugin.args_endpoint import EndpointConfig
from agenttuning_plugin.endpoint_job import make_job
from dataset_builders.errors import ConfigError, EvaluatorError
from evaluators.base import RECORDS_FILE, Evaluation
from evaluators.best_model import best_is_loaded
from evaluators.results_file import metric_of, replace_record
from evaluators.side_process import SideProcess

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

LOG = logging.getLogger(__name__)

FOLDER = "endpoint"
"""Folder in the trainer's output folder: adapters, logs, results and transcripts by step."""

PREFIX = "endpoint_"
"""Of the evaluators' names in logs and records: the same ones may run in training too."""

_JOB = "agenttuning_plugin.endpoint_job"


class EndpointCallback(TrainerCallback):
    """Saves the adapter on a cadence and has it measured on a server, while training goes on.

    One evaluation runs at a time; later ones wait for it with their adapters on disk.
    Figures reach the trainer's log when they are there, at a later step, with the step that
    they are of as `eval_endpoint_step`, and `evaluations.jsonl` under their own step.

    Args:
        trainer: The trainer; its model is a LoRA adapter on a base that the server serves.
        settings: What is measured, when, and where.

    Raises:
        ConfigError: The model is no LoRA adapter, or is sharded over processes; or a figure
            from the server is to choose checkpoints.
    """

    def __init__(self, trainer: Trainer, settings: EndpointConfig) -> None:
        self._trainer = trainer
        self._settings = settings
        self._model = trainer.accelerator.unwrap_model(trainer.model)
        self._adapter = _lora_name(self._model)
        _refuse_sharded(trainer)
        _refuse_as_best(trainer.args.metric_for_best_model or "")
        self._folder = Path(trainer.args.output_dir or ".") / FOLDER
        self._waiting: deque[int] = deque()
        self._running: tuple[int, SideProcess] | None = None
        self._last: int | None = None

    @classmethod
    def install(cls, trainer: Trainer, settings: EndpointConfig) -> EndpointCallback:
        """Make a callback and add it to the trainer."""
        callback = cls(trainer, settings)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the base; a resumed run goes on with what was not finished."""
        if not state.is_world_process_zero:
            return
        self._forget()
        if state.global_step > 0:
            self._take_up(state.global_step)
        else:
            _put_aside(self._folder)
            if not _has_evaluators(self._trainer):  # Else that callback does so.
                _put_aside(self._folder.with_name(RECORDS_FILE))
            if self._settings.at_start:
                self._measure(0)
        self._go_on(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the adapter on the cadence; take in what has come."""
        if not state.is_world_process_zero:
            return
        every = self._settings.every
        if every and state.global_step % every == 0:
            self._measure(state.global_step)
        self._go_on(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the last step before the trainer loads its best checkpoint in its place."""
        if args.load_best_model_at_end and control.should_training_stop:
            self._measure_result(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Likewise, where it was the epoch's evaluation that ended training."""
        self.on_epoch_end(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the result, and wait for all that is still to come."""
        if not best_is_loaded(args, state):
            self._measure_result(state)
        if state.is_world_process_zero:
            self._finish(state, control)

    def _measure_result(self, state: TrainerState) -> None:
        wanted = self._settings.at_end and self._last != state.global_step
        if wanted and state.is_world_process_zero:
            self._measure(state.global_step)

    def _forget(self) -> None:
        """Drop what is left of an earlier `train()` of this trainer, as after Ctrl-C."""
        if self._running is not None:
            self._running[1].stop()
        self._running, self._last = None, None
        self._waiting.clear()

    def _measure(self, step: int) -> None:
        """Save the adapter as it is now; it is measured when its turn comes."""
        self._last = step
        folder = self._folder / f"step-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        saved = folder / "saving"
        self._model.save_pretrained(str(saved), selected_adapters=[self._adapter])
        # peft puts an adapter that is not called "default" into a folder of its name.
        own = saved / self._adapter
        (own if own.is_dir() else saved).rename(folder / "adapter")
        shutil.rmtree(saved, ignore_errors=True)
        self._waiting.append(step)

    def _go_on(self, state: TrainerState, control: TrainerControl) -> None:
        """Take in what is finished, and start what waits; never waits itself."""
        if self._running is not None:
            step, process = self._running
            status = process.poll()
            if status is None:
                return
            self._running = None
            self._collect(step, status, process.last_line(), control)
        if self._waiting:
            self._start(self._waiting.popleft())

    def _start(self, step: int) -> None:
        folder = (self._folder / f"step-{step}").resolve()
        job = make_job(self._settings, f"{self._name()}-step-{step}", folder)
        log = folder / "log.txt"
        # The server has the accelerator; the side process only talks to it.
        process = SideProcess(_JOB, [job.as_text()], log, {"CUDA_VISIBLE_DEVICES": ""})
        self._running = step, process
        LOG.info("step %d is measured at %s: %s", step, self._settings.base_url, log)

    def _name(self) -> str:
        """Prefix of adapters on the server, which other runs use, from folders of this name too."""
        folder = Path(self._trainer.args.output_dir or ".").resolve()
        return f"{folder.name}-{blake2b(str(folder).encode(), digest_size=3).hexdigest()}"

    def _finish(self, state: TrainerState, control: TrainerControl) -> None:
        until = time.monotonic() + self._settings.wait
        self._go_on(state, control)
        while self._running is not None:
            step, process = self._running
            if process.wait(max(0.0, until - time.monotonic())) is None:
                process.stop()
                self._running = None
                line = f"not finished {self._settings.wait:g} s after training"
                self._collect(step, 1, line, control)
                for left in self._waiting:
                    self._collect(left, 1, line, control)
                self._waiting.clear()
            self._go_on(state, control)

    def _collect(self, step: int, status: int, line: str, control: TrainerControl) -> None:
        """Publish what came of a step; keep its adapter unless all went well."""
        folder = self._folder / f"step-{step}"
        results = _results(folder)
        if status != 0 and not any(result.error for result in results):
            reason = line or f"exit status {status}"
            results.append(Evaluation("endpoint", {}, 0, 0.0, suite="", error=reason))
        self._publish(step, results, control)
        if status == 0:
            shutil.rmtree(folder / "adapter", ignore_errors=True)
            return
        reasons = "; ".join(result.error for result in results if result.error)
        LOG.warning("step %d was not wholly measured: %s (%s)", step, reasons, folder / "log.txt")
        if self._settings.strict:
            raise EvaluatorError(f"endpoint: step {step}: {reasons}")

    def _publish(self, step: int, results: list[Evaluation], control: TrainerControl) -> None:
        from transformers import Trainer

        figures: dict[str, float] = {"eval_endpoint_step": float(step)}
        figures["eval_endpoint_not_measured"] = float(sum(bool(r.error) for r in results))
        for result in results:
            if result.metrics:
                figures |= result.log()
            replace_record(self._folder.parent, step, result)
        # See EvaluatorCallback: TRL's own log() clears its averages, and logging resets
        # the flag that this step's training log waits for.
        should_log = control.should_log
        Trainer.log(self._trainer, figures)
        control.should_log = should_log

    def _take_up(self, now: int) -> None:
        """Queue the steps whose adapters are left, and forget those after the checkpoint."""
        for folder in sorted(self._folder.glob("step-*"), key=_step_of):
            if _step_of(folder) > now:
                shutil.rmtree(folder)
            elif (folder / "adapter").is_dir():
                self._waiting.append(_step_of(folder))
        if (self._folder / f"step-{now}").is_dir():
            self._last = now


def _results(folder: Path) -> list[Evaluation]:
    """Rows that `agenttuning evaluate` wrote, under the names that they have here."""
    path = folder / RECORDS_FILE
    if not path.is_file():
        return []
    found = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        row.pop("step")
        row["metrics"] = {name: metric_of(values) for name, values in row["metrics"].items()}
        row["records"] = tuple(row["records"])
        found.append(Evaluation(**{**row, "evaluator": PREFIX + row["evaluator"]}))
    return found


def _lora_name(model: Any) -> str:
    """Name of the adapter in training."""
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict):
        raise ConfigError(
            "agenttuning.endpoint: found a full model, expected a LoRA adapter: a server cannot be "
            "given other weights while it runs; use agenttuning.evaluators"
        )
    name = str(model.active_adapter)
    kind = str(getattr(configs[name].peft_type, "value", configs[name].peft_type))
    if kind != "LORA":
        raise ConfigError(f"agenttuning.endpoint: found a {kind} adapter, expected LORA")
    return name


def _refuse_sharded(trainer: Trainer) -> None:
    from accelerate.utils import DistributedType

    kind = trainer.accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ConfigError(
            f"agenttuning.endpoint: found a model sharded by {kind.value}, of which no process has "
            "the whole adapter; expected one process or DDP"
        )


def _refuse_as_best(figure: str) -> None:
    """Such figures come when training is steps further, too late to choose a checkpoint by."""
    if figure.removeprefix("eval_").startswith(PREFIX):
        raise ConfigError(
            f"metric_for_best_model: found {figure}, which comes from agenttuning.endpoint, after "
            "the trainer has chosen; expected a figure of agenttuning.evaluators"
        )


def _has_evaluators(trainer: Trainer) -> bool:
    from evaluators.callback import EvaluatorCallback

    return any(isinstance(each, EvaluatorCallback) for each in trainer.callback_handler.callbacks)


def _put_aside(path: Path) -> None:
    """Keep an earlier run's files out of this one's, but do not lose them."""
    if path.exists():
        number = 1
        while (kept := path.with_name(f"{path.stem}.previous-{number}{path.suffix}")).exists():
            number += 1
        path.rename(kept)


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else 0
