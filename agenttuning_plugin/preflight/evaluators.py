"""Create each evaluator as in a run: its data, programs and keys must be here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.config.findings import Finding, Level, guarded
from agenttuning_plugin.config.recipe import AgentTuningSection

if TYPE_CHECKING:
    from agenttuning_plugin.evaluation.from_config import Config


def check_evaluators(section: AgentTuningSection) -> Iterator[Finding]:
    """Check the evaluators of a section, and its policy on their figures.

    Args:
        section: The recipe's section.

    Yields:
        One finding for each evaluator; what is missing is an error with its remedy.
    """
    from evaluators.tasks.general_kl import GeneralKLEvaluator
    from evaluators.tasks.general_loss import GeneralLossEvaluator

    primary: dict[str, str] = {}
    for config in section.evaluators:
        if config.type == "agent_loss" or getattr(config, "measures_holdout", False):
            kind = GeneralKLEvaluator if config.type == "general_kl" else GeneralLossEvaluator
            primary[config.key] = kind.primary
            held_out = f"{section.holdout} conversations"
            if config.type == "agent_loss":
                held_out = f"{section.agent_holdout} conversations of each task"
            yield Finding("evaluator", f"{config.type}, {held_out}")
            continue
        yield from guarded(f"evaluator {config.key}", lambda: _evaluator(section, config, primary))  # noqa: B023
    yield from guarded("evaluation", lambda: _policy(section, primary))


def _evaluator(
    section: AgentTuningSection, config: Config, primary: dict[str, str]
) -> Iterator[Finding]:
    from agenttuning_plugin.evaluation.from_config import make_evaluator

    primary[config.key] = make_evaluator(config, None).primary
    detail = config.key
    if isinstance(config, AgentTaskConfig):
        detail = f"{config.environment}/{config.split}, {config.num_tasks} tasks"
        spec = config.spec()
        # What is needed to play is looked for when an episode starts, which is late in a run.
        if missing := spec.dialogue.world.missing(spec.options.get("data")):
            level: Level = "error" if section.evaluation.strict else "warning"
            yield Finding(f"evaluator {config.key}", f"not measured here: {missing}", level)
            return
    yield Finding("evaluator", detail)


def _policy(section: AgentTuningSection, primary: dict[str, str]) -> list[Finding]:
    section.check_evaluation(primary)
    return []
