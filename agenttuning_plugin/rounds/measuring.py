"""The evaluations that rounds are judged by: those of runs, and of the start what they lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.evaluation.from_config import make_evaluator
from agenttuning_plugin.evaluation.model_loading import open_subject
from agenttuning_plugin.evaluation.output_dir import resolved, weights_digest
from agenttuning_plugin.evaluation.progress import with_bars
from agenttuning_plugin.evaluation.suite import LazySubject, Run, Task, run_panel
from agenttuning_plugin.export.trained import find_trained
from agenttuning_plugin.rounds.settings import RoundsConfig
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, EvaluatorError
from dataset_builders.storage import replace_text
from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import lines_of, read_evaluations

Row = Mapping[str, Any]

_FEWEST = 128
"""Default minimum of tasks: at 0.9, a rise by 0.05 is 6 tasks of 128, and only 3 of 64. At least 5
have to succeed in addition, and none fail, for p < 0.05."""


def player_of(section: AgentTuningSection, config: RoundsConfig) -> AgentTaskConfig:
    """Return the recipe's evaluator of the environment, with the number of tasks of the rounds.

    Raises:
        ConfigError: The recipe has none, or it measures on the tasks that are trained on.
    """
    reference = load_environment(config.env).reference
    found = [
        each
        for each in section.evaluators
        if isinstance(each, AgentTaskConfig)
        and load_environment(each.environment).reference == reference
    ]
    if not found:
        raise ConfigError(
            f"env: found {config.env!r}, expected the environment of an evaluator of the recipe "
            "(evaluators: {type: agent_task, environment: ...}), whose figure has to rise"
        )
    player = next((each for each in found if each.split != "train"), None)
    if player is None:
        raise ConfigError(
            f"env: {config.env!r}: found only an evaluator of split 'train', expected one of tasks "
            "that are not trained on"
        )
    known = len(player.spec().task_ids(player.split))
    number = config.eval_tasks or max(player.num_tasks, min(_FEWEST, known))
    if number > known:
        raise ConfigError(
            f"eval_tasks: found {number}, expected at most {known} (split {player.split!r})"
        )
    return player.model_copy(update={"num_tasks": number})


def evaluators_of(
    raw: Sequence[Mapping[str, Any]], section: AgentTuningSection, player: AgentTaskConfig
) -> list[dict[str, Any]]:
    """Return a section's evaluators with the rounds' number of tasks, as in a recipe.

    Args:
        raw: As the user's section has them.
        section: The section, parsed; its evaluators are those of `raw`, in order.
        player: See `player_of`.
    """
    return [
        {**given, "num_tasks": player.num_tasks} if each.key == player.key else dict(given)
        for given, each in zip(raw, section.evaluators, strict=True)
    ]


def last_evaluations(folder: Path) -> dict[str, Row]:
    """Return the last evaluation of each evaluator that measured something.

    Raises:
        SourceNotFoundError: The folder holds none.
        DataError: A line has another format.
    """
    return {row["evaluator"]: row for row in read_evaluations(folder) if row["metrics"]}


def base_evaluations(folder: Path) -> dict[str, Row]:
    """Return the evaluation of each evaluator at step 0, as far as there is one.

    Raises:
        SourceNotFoundError: The folder holds none.
        DataError: A line has another format.
    """
    rows = read_evaluations(folder)
    return {row["evaluator"]: row for row in rows if row["metrics"] and row["step"] == 0}


def measure_start(model: Path, player: AgentTaskConfig, folder: Path) -> None:
    """Copy the start's evaluations to round 0's folder, and measure the tasks that they lack.

    Args:
        model: Output folder of the run to start from.
        player: The evaluator whose tasks are needed.
        folder: Folder of round 0.

    Raises:
        EvaluatorError: It could not be measured.
        AgentTuningError: The model cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = lines_of(model) if (model / RECORDS_FILE).is_file() else []
    if not (folder / RECORDS_FILE).is_file():
        replace_text(folder / RECORDS_FILE, "".join(f"{line}\n" for line in lines if line))
    rows = [*read_evaluations(folder)]
    evaluator = make_evaluator(player, None)
    last = {row["evaluator"]: row for row in rows if row["metrics"]}.get(evaluator.name)
    measured = {record["item"] for record in last["records"] if record["scores"]} if last else set()
    if last and measured >= set(evaluator.items()) and last["about"] == evaluator.about():
        return
    step = max((row["step"] for row in rows), default=0) or 1  # 0 is the base's
    trained = find_trained(model)
    subject = LazySubject(partial(open_subject, str(model), end_of_turn=trained.end_of_turn))
    task = Task(evaluator.name, evaluator.name, evaluator.suite, lambda: evaluator)
    heading = {"model": resolved(str(model)), "weights": weights_digest(str(model))}
    run = Run(subject, out=folder, step=step, heading=heading)
    try:
        panel = with_bars(lambda bars: run_panel([task], run, bars))
    finally:
        subject.close()
    result = panel.results[task.name]
    if not result.metrics:
        raise EvaluatorError(f"{model}: {task.name} was not measured: {result.error}")
