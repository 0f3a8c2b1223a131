"""Check a TRL script: run it up to its trainer, and report on the rows that it would train on.

The script is the user's own code and is run as it is. It stops where it would make a trainer or
load a model, whichever comes first, so that nothing is trained or written.
"""

from __future__ import annotations

import importlib
import inspect
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.recipe_shape import shape_of_arguments
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.preflight.device import Hardware
from agenttuning_plugin.preflight.loss_function import script_loss
from agenttuning_plugin.preflight.planned import PlannedRun, check_run
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.sample import Part, can_sample, everything, sampled
from agenttuning_plugin.preflight.saving import Saving
from agenttuning_plugin.training_data.made_sources import stand_ins
from agenttuning_plugin.training_data.run import BEFORE_BUILD, TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import AgentTuningError
from dataset_builders.extras import needs_extra
from dataset_builders.stdio import silenced

_BF16 = "is_torch_bf16_gpu_available"


class _Stop(BaseException):
    """Ends the script; not an `Exception`, so that the script does not catch it."""


@dataclass
class _Script:
    """What a script has done so far.

    Attributes:
        full: Whether its run is built on all data.
        processes: Processes that training is started with.
        run: Its run, the first that it makes.
        section: The run's section.
        settings: Settings of its rows.
        args: The trainer's arguments.
        parts: What is read of each source.
        is_built: Whether the run has its rows.
        trainer: Arguments by name of the trainer or model where the script was stopped.
    """

    full: bool
    processes: int
    run: TrainingRun | None = None
    section: AgentTuningSection | None = None
    settings: RunSettings | None = None
    args: Any = None
    parts: list[Part] = field(default_factory=list)
    is_built: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)

    def before_build(
        self, run: TrainingRun, section: AgentTuningSection, settings: RunSettings, args: Any
    ) -> tuple[AgentTuningSection, RunSettings]:
        """Record the run, and let it be built on what a check reads."""
        batch = replace(settings.batch, world=max(settings.batch.world, self.processes))
        settings = replace(settings, batch=batch)
        self.run, self.section, self.settings, self.args = run, section, settings, args
        section = stand_ins(section)  # A check makes no source.
        if self.full:
            self.parts = everything(section)
            return section, settings
        if not can_sample(section):
            raise _Stop
        read, self.parts = sampled(section)
        return read, replace(settings, cache=None)

    def hardware(self, device: Device | None) -> Hardware:
        """Return what the run needs of a device."""
        given, args, section, settings = self.trainer, self.args, self.section, self.settings
        assert self.run is not None
        assert section is not None
        assert settings is not None
        model = given.get("model", given.get("pretrained_model_name_or_path"))
        quantization = given.get("quantization_config")
        if not isinstance(model, str):
            model = self.run.tokenizer.name_or_path

        def shape(kind: Literal["cuda", "cpu"]) -> TrainingShape:
            return shape_of_arguments(
                args,
                max_length=settings.encoding.max_length,
                peft_config=given.get("peft_config"),
                quantization=quantization,
                packing=settings.packed_length is not None,
                section=section.model_dump(),
                device=kind,
                world=self.processes,
            )

        for_gpu = (args.bf16 and not args.use_cpu) or quantization or self.processes > 1
        return Hardware(str(model), shape, bool(for_gpu), device)

    def saving(self) -> Saving:
        """Return what the run writes."""
        args = self.args
        strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
        interval = None if strategy == "no" else float(args.save_steps)
        return Saving(Path(args.output_dir), False, interval, args.save_total_limit)

    def stop_at(self, original: Any) -> Callable[..., Any]:
        """Return a function that records its arguments and ends the script."""
        names = inspect.signature(original)

        def stopped(*args: Any, **kwargs: Any) -> Any:
            found = names.bind_partial(*args, **kwargs).arguments
            self.trainer = {**found, **found.pop("kwargs", {})}
            raise _Stop

        return stopped


def script_report(
    path: Path, *, full: bool = False, processes: int = 1, device: Device | None = None
) -> Report:
    """Run a script up to its trainer and check the run that it makes.

    Args:
        path: A Python script that makes a `TrainingRun` and then a trainer.
        full: Whether to read and encode all data; the run's cache is used and filled.
        processes: Processes that training is started with.
        device: Device that training will run on; none: the one found here.

    Returns:
        Findings and figures.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    report = Report(str(path), full)
    script = _Script(full, processes)
    with silenced():
        report.add("recipe", _run(path, script))
        if script.section is not None and script.run is not None:
            normalization = script.section.loss_normalization
            report.add("recipe", script_loss(script.args, normalization))
            built = (script.run, script.parts) if script.is_built else None
            planned = PlannedRun(
                script.section,
                script.run.tokenizer,
                script.settings,
                script.hardware(device),
                script.saving(),
                built,
            )
            check_run(planned, report)
    return report


def _run(path: Path, script: _Script) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding("script", f"{path}: no such script", "error")
        return
    token = BEFORE_BUILD.set(script.before_build)
    try:
        with _stopping(script), _as_program(path):
            runpy.run_path(str(path), run_name="__main__")
    except _Stop:
        pass
    except (Exception, SystemExit) as error:
        yield from _failure(path, script, error)
        return
    finally:
        BEFORE_BUILD.reset(token)
        script.is_built = script.run is not None and hasattr(script.run, "planned")
    if script.run is None:
        what = "loads a model or makes a trainer" if script.trainer else "ends"
        detail = f"{path}: {what} before it makes a TrainingRun, expected one before the trainer"
        yield Finding("script", detail, "error")
    else:
        yield Finding("script", "run up to its trainer; nothing is trained")


def _failure(path: Path, script: _Script, error: BaseException) -> Iterator[Finding]:
    """Report an exception of the script; what the run's own checks repeat is left to them."""
    from agenttuning_plugin.trainers.axolotl_recipe import one_line

    if isinstance(error, AgentTuningError) and script.section is not None:
        return
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = f":{frames[-1].lineno}" if frames else ""
    text = one_line(error)
    if not isinstance(error, AgentTuningError):
        text = f"{type(error).__name__}: {text}"
    yield Finding("script", f"{path}{line}: {text}", "error")


@contextmanager
def _as_program(path: Path) -> Iterator[None]:
    """Set the command line and the import path as `python SCRIPT` does."""
    argv, paths = sys.argv, list(sys.path)
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, paths


@contextmanager
def _stopping(script: _Script) -> Iterator[None]:
    """Stop where the script makes a trainer or loads a model."""
    with needs_extra("trl"):
        import torch
        import transformers
        from transformers import training_args
        from transformers.models.auto.auto_factory import _BaseAutoModelClass

    places: list[tuple[Any, str]] = [
        (transformers.Trainer, "__init__"),
        (transformers.PreTrainedModel, "from_pretrained"),
        (_BaseAutoModelClass, "from_pretrained"),
    ]
    try:
        trainer = importlib.import_module("trl").SFTTrainer
    except ImportError:
        pass
    else:
        places.append((trainer, "__init__"))
    with ExitStack() as undo:
        if not torch.cuda.is_available():
            # Otherwise the arguments of a script for a GPU cannot be made on another machine.
            undo.callback(setattr, training_args, _BF16, getattr(training_args, _BF16))
            setattr(training_args, _BF16, lambda *_: True)
        for owner, name in places:
            undo.callback(setattr, owner, name, owner.__dict__[name])
            stop = script.stop_at(inspect.unwrap(getattr(owner, name)))
            setattr(owner, name, stop)
        yield
