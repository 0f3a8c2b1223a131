"""Trainer callback that evaluates on an inference server, in a child process."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.endpoint import EndpointConfig
from agenttuning_plugin.evaluation.child_process import SideProcess
from agenttuning_plugin.evaluation.endpoint_rules import (
    has_evaluators,
    lora_name,
    refuse_as_best,
    refuse_sharded,
)
from agenttuning_plugin.evaluation.endpoint_worker import make_job
from agenttuning_plugin.evaluation.server import RouteError, Server
from agenttuning_plugin.reports.endpoint_files import (
    ADAPTER,
    FOLDER,
    PREFIX,
    adapter_in,
    digest,
    prefix_of,
    results_in,
    step_of,
)
from dataset_builders.errors import ConfigError, EvaluatorError
from dataset_builders.settings import to_json
from evaluators.evaluator import RECORDS_FILE, EvalResult
from evaluators.results.evaluations import replace_record
from evaluators.results.history import archive
from evaluators.training.best_checkpoint import best_is_loaded
from evaluators.training.callback_order import LastStepCallback, go_last, report_at_end
from evaluators.training.trainer_log import log_figures
from evaluators.training.trainer_target import tokenizer_of

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

LOG = logging.getLogger("axolotl.agenttuning")  # Axolotl shows INFO only of its own loggers.

TEMPLATE_FILE = "chat_template.jinja"
"""File with the run's chat template, written if the server's differs."""

_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_TO_COMPARE = 30.0

_JOB = "agenttuning_plugin.evaluation.endpoint_worker"


class EndpointCallback(LastStepCallback):
    """Saves the adapter periodically and evaluates it on a server, while training continues.

    One evaluation runs at a time; later ones wait for it with their adapters on disk.
    Figures are logged when available, at a later step, with their own step as `eval_endpoint_step`,
    and `evaluations.jsonl` under their own step.

    Args:
        trainer: The trainer; its model is a LoRA adapter on a base that the server serves.
        settings: What is measured, when, and where.
        end_of_turn: Tokens besides eos that end a turn.

    Raises:
        ConfigError: The model is no LoRA adapter, or is sharded; a figure from the server is to
            choose checkpoints; or the server's chat template or end tokens are not the run's.
    """

    def __init__(
        self,
        trainer: Trainer,
        settings: EndpointConfig,
        end_of_turn: Sequence[str] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._trainer, self._settings = trainer, settings
        self._model = trainer.accelerator.unwrap_model(trainer.model)
        self._adapter = lora_name(self._model)
        refuse_sharded(trainer)
        refuse_as_best(trainer.args.metric_for_best_model or "", PREFIX)
        self._folder = Path(trainer.args.output_dir or ".") / FOLDER
        self._waiting: deque[int] = deque()
        self._running: tuple[int, SideProcess] | None = None
        self._last: int | None = None
        self._prompts: dict[str, Any] | None = None
        if trainer.is_world_process_zero():
            self._compare_prompts(tuple(end_of_turn), dict(template_kwargs or {}))

    @classmethod
    def install(
        cls,
        trainer: Trainer,
        settings: EndpointConfig,
        end_of_turn: Sequence[str] = (),
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> EndpointCallback:
        """Create a callback and add it to the trainer; see the class."""
        callback = cls(trainer, settings, end_of_turn, template_kwargs)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate the base model; a resumed run continues unfinished evaluations."""
        if not state.is_world_process_zero:
            return
        self._forget()
        if state.global_step > 0:
            self._take_up(state.global_step)
        else:
            archive(self._folder)
            if not has_evaluators(self._trainer):  # Otherwise that callback does so.
                archive(self._folder.with_name(RECORDS_FILE))
            if self._settings.at_start:
                self._measure(0)
        self._go_on(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the adapter if due; process finished evaluations."""
        if not state.is_world_process_zero:
            return
        every = self._settings.every
        if every and state.global_step % every == 0:
            self._measure(state.global_step)
        self._go_on(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the last step, before the trainer loads its best checkpoint instead."""
        report_at_end(self._trainer, self, control)
        if control.should_training_stop:
            self._measure_result(state)
            if state.is_world_process_zero:
                self._go_on(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate the result, and wait for all outstanding evaluations."""
        if not best_is_loaded(args, state):
            self._measure_result(state)
        if state.is_world_process_zero:
            self._finish(state, control)
        go_last(self._trainer, self)

    def _measure_result(self, state: TrainerState) -> None:
        wanted = self._settings.at_end and self._last != state.global_step
        if wanted and state.is_world_process_zero:
            self._measure(state.global_step)

    def _forget(self) -> None:
        """Drop leftovers of an earlier `train()` of this trainer, for example after Ctrl-C."""
        if self._running is not None:
            self._running[1].stop()
        self._running, self._last = None, None
        self._waiting.clear()

    def _compare_prompts(self, end_of_turn: tuple[str, ...], variables: dict[str, Any]) -> None:
        """Compare the server's prompts with the run's; warn if the server is not up yet."""
        from agenttuning_plugin.evaluation.served_prompts import compare_prompts, prompts_of

        tokenizer = tokenizer_of(self._trainer)
        prompts = prompts_of(tokenizer, end_of_turn, variables)
        self._prompts = asdict(prompts)
        settings = self._settings
        server = Server(settings.base_url, settings.api_key_env, _SECONDS_TO_COMPARE)
        try:
            for line in compare_prompts(server, prompts, tokenizer):
                LOG.warning("agenttuning.endpoint: %s", line)
        except RouteError as error:
            LOG.warning("agenttuning.endpoint: not compared with the server's prompts: %s", error)
        except ConfigError as error:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / TEMPLATE_FILE
            file.write_text(str(tokenizer.chat_template), "utf-8")
            raise ConfigError(f"agenttuning.endpoint: {error}; FILE is {file}") from error

    def _measure(self, step: int) -> None:
        """Save the current adapter and queue its evaluation."""
        self._last = step
        folder = self._folder / f"step-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        saved = folder / "saving"
        self._model.save_pretrained(str(saved), selected_adapters=[self._adapter])
        # peft saves an adapter not named "default" to a subfolder of its name.
        own = saved / self._adapter
        made = own if own.is_dir() else saved
        made.rename(folder / (ADAPTER + digest(made)))
        shutil.rmtree(saved, ignore_errors=True)
        self._waiting.append(step)

    def _go_on(self, state: TrainerState, control: TrainerControl) -> None:
        """Process finished evaluations, and start the next one; never waits."""
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
        adapter = adapter_in(folder)
        # Both name and path identify the weights: vLLM keys its prefix cache by them, and keeps
        # it when an adapter is unloaded.
        name = f"{prefix_of(self._folder.parent)}-step-{step}-{adapter.name.removeprefix(ADAPTER)}"
        job = make_job(self._settings, name, folder, adapter, self._prompts)
        log = folder / "log.txt"
        # The server has the accelerator; the side process only talks to it.
        process = SideProcess(_JOB, [to_json(job)], log, {"CUDA_VISIBLE_DEVICES": ""})
        self._running = step, process
        LOG.info("step %d is measured at %s: %s", step, self._settings.base_url, log)

    def _finish(self, state: TrainerState, control: TrainerControl) -> None:
        until = time.monotonic() + self._settings.wait
        self._go_on(state, control)
        while self._running is not None:
            step, process = self._running
            if self._wait(step, process, until) is None:
                process.stop()
                self._running = None
                line = f"not finished {self._settings.wait:g} s after training"
                self._collect(step, 1, line, control)
                for left in self._waiting:
                    self._collect(left, 1, line, control)
                self._waiting.clear()
            self._go_on(state, control)

    def _wait(self, step: int, process: SideProcess, until: float) -> int | None:
        """Wait for a step's figures and log this: training is over, and the bar shows 100 %."""
        while (left := until - time.monotonic()) > 0:
            LOG.warning(
                "waiting for step %d at %s, at most %d s, then %d more steps: %s",
                *(step, self._settings.base_url, left, len(self._waiting)),
                process.last_line() or "no output yet",
            )
            status = process.wait(min(left, _SECONDS_BETWEEN_LINES))
            if status is not None:
                return status
        return process.wait(0)

    def _collect(self, step: int, status: int, line: str, control: TrainerControl) -> None:
        """Publish a step's results; keep its adapter unless the evaluation succeeded."""
        folder = self._folder / f"step-{step}"
        results = results_in(folder)
        if status != 0 and not any(result.error for result in results):
            reason = line or f"exit status {status}"
            results.append(EvalResult.unmeasured("endpoint", reason, suite=""))
        self._publish(step, results, control)
        if status == 0:
            shutil.rmtree(adapter_in(folder), ignore_errors=True)
            return
        reasons = "; ".join(result.error for result in results if result.error)
        LOG.warning("step %d was not wholly measured: %s (%s)", step, reasons, folder / "log.txt")
        if self._settings.strict:
            raise EvaluatorError(f"endpoint: step {step}: {reasons}")

    def _publish(self, step: int, results: list[EvalResult], control: TrainerControl) -> None:
        figures: dict[str, float] = {"eval_endpoint_step": float(step)}
        figures["eval_endpoint_not_measured"] = float(sum(bool(r.error) for r in results))
        for result in results:
            if result.metrics:
                figures |= result.log()
            replace_record(self._folder.parent, step, result)
        log_figures(self._trainer, figures, control)

    def _take_up(self, now: int) -> None:
        """Queue steps with remaining adapters, and discard those after the checkpoint."""
        for folder in sorted(self._folder.glob("step-*"), key=step_of):
            if step_of(folder) > now:
                shutil.rmtree(folder)
            elif adapter_in(folder).is_dir():
                self._waiting.append(step_of(folder))
        if (self._folder / f"step-{now}").is_dir():
            self._last = now
