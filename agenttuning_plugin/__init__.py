"""AgentTuning for Axolotl and TRL: trainer adapters and the command line.

Importing this package loads neither torch nor a trainer; a name is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agenttuning_plugin.config.recipe import AgentTuningArgs, AgentTuningSection
    from agenttuning_plugin.trainers.axolotl import AgentTuningPlugin
    from dataset_builders.mixing.mixes import build_mix
    from dataset_builders.sources.loading import SourceSpec
    from evaluators.tasks.agent_task import AgentTaskEvaluator
    from evaluators.tasks.general_loss import GeneralLossEvaluator
    from evaluators.tasks.replay import ReplayEvaluator
    from evaluators.training.callback import EvaluatorCallback
    from evaluators.training.floors import BestCheckpoint, ScoreFloor
    from evaluators.training.schedule import EvaluationPolicy, Schedule

__version__ = "0.1.0"

__all__ = [
    "AgentTaskEvaluator",
    "AgentTuningArgs",
    "AgentTuningPlugin",
    "AgentTuningSection",
    "BestCheckpoint",
    "EvaluationPolicy",
    "EvaluatorCallback",
    "GeneralLossEvaluator",
    "ReplayEvaluator",
    "Schedule",
    "ScoreFloor",
    "SourceSpec",
    "build_mix",
]

_MODULES = {
    "AgentTaskEvaluator": "evaluators.tasks.agent_task",
    "AgentTuningArgs": "agenttuning_plugin.config.recipe",
    "AgentTuningPlugin": "agenttuning_plugin.trainers.axolotl",
    "AgentTuningSection": "agenttuning_plugin.config.recipe",
    "BestCheckpoint": "evaluators.training.floors",
    "EvaluatorCallback": "evaluators.training.callback",
    "ScoreFloor": "evaluators.training.floors",
    "GeneralLossEvaluator": "evaluators.tasks.general_loss",
    "EvaluationPolicy": "evaluators.training.schedule",
    "ReplayEvaluator": "evaluators.tasks.replay",
    "Schedule": "evaluators.training.schedule",
    "SourceSpec": "dataset_builders.sources.loading",
    "build_mix": "dataset_builders.mixing.mixes",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises:
        MissingExtraError: What it needs is not installed; the message names the extra.
    """
    from importlib import import_module

    from dataset_builders.extras import needs_extra

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_extra("axolotl" if name == "AgentTuningPlugin" else "eval"):
        return getattr(import_module(_MODULES[name]), name)
