"""Create the evaluators of the recipe's section."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.evaluation import (
    AgentLossConfig,
    AgentTaskConfig,
    BenchmarkConfig,
    GeneralKLConfig,
    GeneralLossConfig,
    RefusalConfig,
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
from dataset_builders.sources.inputs import resolve_evaluation_source
from dataset_builders.sources.loading import load_source
from evaluators.evaluator import EvalResult, Evaluator
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.general_kl import GeneralKLEvaluator
from evaluators.tasks.general_loss import GeneralLossEvaluator
from evaluators.tasks.held_out_rows import ConversationRows
from evaluators.tasks.registry import SuiteSettings, select
from evaluators.tasks.replay import ReplayEvaluator, oracle_trajectories
from evaluators.training.schedule import Cadence, EvaluationPolicy, Schedule

if TYPE_CHECKING:
    from datasets import Dataset

Config = (
    AgentTaskConfig
    | GeneralLossConfig
    | GeneralKLConfig
    | AgentLossConfig
    | ReplayConfig
    | RefusalConfig
    | BenchmarkConfig
)

LACKING = (SourceNotFoundError, MissingExtraError, EnvironmentFailureError)
"""Errors about missing requirements of this machine; errors in the recipe are always raised."""


def schedules(
    section: AgentTuningSection,
    holdout: Dataset | None,
    agent_loss: Callable[[AgentLossConfig], Evaluator] | None = None,
) -> tuple[list[Schedule], list[EvalResult]]:
    """Create the evaluators that a section lists.

    Args:
        section: The recipe's section.
        holdout: Rows that `general_loss` is measured on, or none.
        agent_loss: Creates the evaluator of held-out agent rows; none if there are no such rows.

    Returns:
        Their schedules, and the evaluators that cannot run here because a program or data is
        missing, with the reason, unless the section is strict.

    Raises:
        ConfigError: An environment, split, number of tasks or option is unknown, or the loss is
            requested without held-out rows.
        AgentTuningError: An evaluator cannot run here, and the section is strict.
    """
    made: list[Schedule] = []
    lacking: list[EvalResult] = []
    for config in section.evaluators:
        try:
            evaluator = make_evaluator(config, holdout, agent_loss)
        except LACKING as error:
            if section.evaluation.strict:
                raise
            lacking.append(unavailable(config, error))
            continue
        made.append(schedule_of(config, evaluator, section.evaluation))
    return made, lacking


def schedule_of(config: Config, evaluator: Evaluator, policy: EvaluationPolicy) -> Schedule:
    """Return an evaluator's schedule."""
    when = {name: getattr(config, name) for name in Cadence.model_fields}
    limit = config.limit if isinstance(config, BenchmarkConfig | RefusalConfig) else None
    settings = config.model_dump_json(exclude=set(Cadence.model_fields))
    return policy.scheduled(Schedule(evaluator, limit=limit, settings=settings, **when))


def unavailable(config: Config, error: Exception) -> EvalResult:
    """Return the result of an evaluator that cannot run here."""
    return EvalResult.unmeasured(config.key, str(error))


def make_evaluator(
    config: Config,
    holdout: Dataset | None,
    agent_loss: Callable[[AgentLossConfig], Evaluator] | None = None,
) -> Evaluator:
    """Create one evaluator.

    Args:
        config: Its settings.
        holdout: Rows that `general_loss` is measured on, or none.
        agent_loss: See `schedules`.

    Raises:
        AgentTuningError: It cannot run here, or its settings are invalid.
    """
    if isinstance(config, AgentTaskConfig):
        return AgentTaskEvaluator(
            config.spec(),
            split=config.split,
            num_tasks=config.num_tasks,
            batch_size=config.batch_size,
            max_new_tokens=config.max_new_tokens,
            max_turns=config.max_turns,
        )
    if isinstance(config, ReplayConfig):
        return _replay(config)
    if isinstance(config, BenchmarkConfig):
        return _benchmark(config, config.name, config.options)
    if isinstance(config, RefusalConfig):
        chosen = {"data": config.data, "setting": config.setting, "actions": config.actions}
        return _benchmark(config, config.type, chosen)
    if isinstance(config, AgentLossConfig):
        if agent_loss is None:
            raise ConfigError("evaluators: agent_loss has no held-out conversation")
        return agent_loss(config)
    return _held_out_chat(config, holdout)


def _held_out_chat(
    config: GeneralLossConfig | GeneralKLConfig, holdout: Dataset | None
) -> Evaluator:
    rows: Dataset | ConversationRows | None = holdout
    if config.data is not None:
        read = load_source(resolve_evaluation_source(config.data)).conversations
        rows = ConversationRows(read, config.limit, config.max_length)
    if rows is None:
        raise ConfigError(f"evaluators: {config.type} has no held-out conversation")
    if isinstance(config, GeneralKLConfig):
        return GeneralKLEvaluator(rows, config.key, config.reference)
    return GeneralLossEvaluator(rows, config.key)


def _replay(config: ReplayConfig) -> ReplayEvaluator:
    number = config.num_trajectories
    spec = load_environment(config.environment)
    if config.data is None:
        played, limit = oracle_trajectories(spec, number), None
    else:
        read = load_source(resolve_evaluation_source(config.data)).conversations
        played, limit = list(read), number
    return ReplayEvaluator(
        played, limit=limit, name=config.key, max_length=config.max_length, environments=[spec]
    )


def _benchmark(
    config: BenchmarkConfig | RefusalConfig, name: str, options: dict[str, Any]
) -> Evaluator:
    settings = SuiteSettings(
        data=config.data if isinstance(config, BenchmarkConfig) else None,
        batch_size=config.batch_size,
        max_new_tokens=config.max_new_tokens,
        judge=config.judge,
        options={name: options},
    )
    (benchmark,) = select([name])
    return benchmark.evaluator(settings)
