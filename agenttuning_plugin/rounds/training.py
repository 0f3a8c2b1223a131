"""Train a round: what a trainer is given, and Axolotl's own command as one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agenttuning_plugin.console import writing
from agenttuning_plugin.evaluation.child_process import SideProcess
from agenttuning_plugin.export.merge import merge_run
from agenttuning_plugin.export.trained import TrainedModel, find_trained
from agenttuning_plugin.reports.run_end import SUMMARY
from agenttuning_plugin.sweeps.checkpoints import last_checkpoint
from dataset_builders.errors import AgentTuningError, SourceNotFoundError
from dataset_builders.storage import replace_text
from evaluators.evaluator import RECORDS_FILE

MODEL = "model"
"""Folder of a round's training run."""

_LAUNCHER = "accelerate.commands.accelerate_cli"
_UNTRACKED = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}


class RoundTrainingError(AgentTuningError, RuntimeError):
    """A round's training failed."""


_REPLACED = ("base_model", "agenttuning", "output_dir", "dataset_prepared_path")
"""Keys of the user's recipe that each round has its own values of."""


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training run of a round.

    Attributes:
        number: The round; 0 trains the recipe as it is.
        section: The section `agenttuning` of its recipe, with the round's agent data.
        base_model: Folder or hub id of the model to train.
        out: Output folder, for the model (or adapter) and `evaluations.jsonl`.
        folder: Folder of the round, for the trainer's other files.
    """

    number: int
    section: Mapping[str, Any]
    base_model: str
    out: Path
    folder: Path


Train = Callable[[TrainingJob], None]
"""Trains a round: runs the section's evaluators at the end, and saves the model."""


def train_round(job: TrainingJob, train: Train) -> None:
    """Train a round; leftovers of a run that was killed are resumed from or removed.

    Raises:
        RoundTrainingError: It left no model or no evaluations.
        Exception: Whatever the trainer raises.
    """
    with writing(job.folder):
        if job.out.exists() and last_checkpoint(job.out) is None:
            shutil.rmtree(job.out)
        job.folder.mkdir(parents=True, exist_ok=True)
    train(job)
    if not (job.out / RECORDS_FILE).is_file():
        raise RoundTrainingError(
            f"{job.out}: training left no {RECORDS_FILE}, expected the section's evaluators to run"
        )
    find_finished(job.out)


def find_finished(folder: Path) -> TrainedModel:
    """Find the model of a run that has ended: an adapter's config is there before its weights.

    Raises:
        SourceNotFoundError: There is no model, or no weights of the adapter.
        AgentTuningError: As `find_trained`.
    """
    trained = find_trained(folder)
    if trained.adapter and not any(trained.folder.glob("adapter_model.*")):
        raise SourceNotFoundError(
            f"{folder}: found no weights of the adapter, expected those of a run that has ended"
        )
    return trained


@dataclass(frozen=True, slots=True)
class AxolotlTrainer:
    """Trains a round by `axolotl.cli.train` in a process of its own, which ends with this one.

    Attributes:
        recipe: Content of the user's recipe; the job's section, model and folders replace its own.
        say: Called with a line about what is done.
    """

    recipe: Mapping[str, Any]
    say: Callable[[str], None] = lambda _: None

    @property
    def settings(self) -> dict[str, Any]:
        """What a round's training depends on besides section, model and folders, by name."""
        return {f"recipe.{key}": self.recipe[key] for key in self.recipe if key not in _REPLACED}

    def __call__(self, job: TrainingJob) -> None:
        """Write the round's recipe and train it.

        Raises:
            RoundTrainingError: The process failed; names its log.
        """
        path, log = job.folder / "recipe.yaml", job.folder / "train.log"
        checkpoint = last_checkpoint(job.out)
        resumes = {"resume_from_checkpoint": str(checkpoint)} if checkpoint else {}
        content = {
            **self.recipe,
            "base_model": job.base_model,
            "agenttuning": dict(job.section),
            "output_dir": str(job.out),
            "dataset_prepared_path": str(job.folder.parent / "prepared"),
            **resumes,
        }
        with writing(path):
            replace_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
            log.unlink(missing_ok=True)
        self.say(f"training: accelerate launch -m axolotl.cli.train {path} (log: {log})")
        # accelerate gives a CPU process one thread by default.
        threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
        environment = {"OMP_NUM_THREADS": threads, SUMMARY: "0", **_UNTRACKED}
        arguments = ("launch", "-m", "axolotl.cli.train", str(path))
        process = SideProcess(_LAUNCHER, arguments, log, environment)
        try:
            status = process.wait()
        finally:
            process.stop()
        if status:
            raise RoundTrainingError(
                f"round {job.number}: training ended with exit status {status}: "
                f"{process.last_line() or 'no output'} (log: {log})"
            )


def merged_model(model: Path, folder: Path) -> Path:
    """Return the folder of a whole model: the run's own, or its adapter merged, once.

    Args:
        model: Output folder of a run.
        folder: Where `merged` is made.

    Raises:
        AgentTuningError: It cannot be merged, see `merge_run`.
    """
    trained = find_trained(model)
    if not trained.adapter:
        return trained.folder
    merged = folder / "merged"
    if not merged.is_dir():  # It appears only when it is whole and checked.
        merge_run(model, merged, dtype=trained.dtype)
    return merged
