"""The section's evaluators, made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenttuning_plugin.config.evaluation import (
    AgentTaskConfig,
    BenchmarkConfig,
    FloorConfig,
    GeneralLossConfig,
    ReplayConfig,
)
from agenttuning_plugin.config.recipe import AgentTuningSection
from dataset_builders.environments import load_environment
from dataset_builders.errors import (
    ConfigError,
    EnvironmentFailureError,
    MissingExtraError,
    SourceNotFoundError,
)
from dataset_builders.sources.inputs import as_evaluation_spec
from dataset_builders.sources.loading import load_source
from evaluators.evaluator import EvalResult, Evaluator
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.general_loss import GeneralLossEvaluator
from evaluators.tasks.registry import SuiteSettings, select
from evaluators.tasks.replay import ReplayEvaluator, oracle_trajectories
from evaluators.training.callback import EvaluationPolicy, Schedule
from evaluators.training.floors import BestCheckpoint, ScoreFloor

if TYPE_CHECKING:
    from datasets import Dataset

Config = AgentTaskConfig | GeneralLossConfig | ReplayConfig | BenchmarkConfig

# What a machine lacks; what the recipe says wrongly is an error in any case.
_LACKING = (SourceNotFoundError, MissingExtraError, EnvironmentFailureError)


def schedules(
    section: AgentTuningSection, holdout: Dataset | None
) -> tuple[list[Schedule], EvaluationPolicy]:
    """Make the evaluators that a section lists, and what holds for all of them.

    One that cannot run here, for want of a program or data, is left out; the policy tells
    why, unless it is strict.

    Raises:
        ConfigError: An environment, split or number of tasks is unknown, or the loss is
            to be measured without held-out rows.
        AgentTuningError: An evaluator cannot run here, and the section is strict.
    """
    made: list[Schedule] = []
    lacking: list[EvalResult] = []
    common = section.evaluation
    for config in section.evaluators:
        try:
            evaluator = make_evaluator(config, holdout)
        except _LACKING as error:
            if common.strict:
                raise
            reason = " ".join(str(error).split())
            lacking.append(EvalResult(config.key, {}, 0, 0.0, error=reason))
            continue
        every = config.every or (common.every_generative if evaluator.generates else common.every)
        limit = config.limit if isinstance(config, BenchmarkConfig) else None
        made.append(Schedule(evaluator, every, config.at_start, config.at_end, limit))
    return made, _policy(section, tuple(lacking))


def make_evaluator(config: Config, holdout: Dataset | None) -> Evaluator:
    """Make one evaluator.

    Args:
        config: Its settings.
        holdout: Rows that `general_loss` is measured on, or none.

    Raises:
        AgentTuningError: It cannot run here, or its settings are wrong.
    """
    if isinstance(config, AgentTaskConfig):
        return AgentTaskEvaluator(
            config.spec(),
            split=config.split,
            num_tasks=config.num_tasks,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
        )
    if isinstance(config, ReplayConfig):
        return _replay(config)
    if isinstance(config, BenchmarkConfig):
        return _benchmark(config)
    if holdout is None:
        raise ConfigError("evaluators: general_loss has no held-out conversation")
    return GeneralLossEvaluator(holdout)


def _replay(config: ReplayConfig) -> ReplayEvaluator:
    number = config.num_trajectories
    if config.data is None:
        played = oracle_trajectories(load_environment(config.environment), number)
        return ReplayEvaluator(played, max_length=config.max_length)
    read = load_source(as_evaluation_spec(config.data)).conversations
    return ReplayEvaluator(read, limit=number, max_length=config.max_length)


def _benchmark(config: BenchmarkConfig) -> Evaluator:
    settings = SuiteSettings(
        data=config.data,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        judge=config.judge,
        options={config.name: config.options},
    )
    (benchmark,) = select([config.name])
    return benchmark.evaluator(settings)


def _policy(section: AgentTuningSection, lacking: tuple[EvalResult, ...]) -> EvaluationPolicy:
    common = section.evaluation
    stop, best = common.stop_if_general_drops, common.best
    return EvaluationPolicy(
        max_time_share=common.max_time_share,
        strict=common.strict,
        stop=None if stop is None else _floor(stop),
        best=None if best is None else BestCheckpoint(best.evaluator, _floor(best.floor)),
        unavailable=lacking,
        watchdog=common.watchdog,
    )


def _floor(config: FloorConfig) -> ScoreFloor:
    return ScoreFloor(config.evaluator, config.by, config.p)
