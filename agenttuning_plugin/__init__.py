"""AgentTuning for Axolotl and TRL: trainer adapters and the command line.

Importing this package loads neither torch nor a trainer; a name is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agenttuning_plugin.args import AgentTuningArgs, AgentTuningSection
    from agenttuning_plugin.plugin import AgentTuningPlugin
    from dataset_builders.mixing.mixes import build_mix
    from dataset_builders.reading.sources import SourceSpec
    from evaluators.agent_tasks import AgentTaskEvaluator
    from evaluators.callback import EvaluatorCallback
    from evaluators.general_loss import GeneralLossEvaluator
    from evaluators.guards import BestStep, GeneralFloor
    from evaluators.replay import ReplayEvaluator
    from evaluators.schedule import Policy, Schedule

__version__ = "0.1.0"

__all__ = [
    "AgentTaskEvaluator",
    "AgentTuningArgs",
    "AgentTuningPlugin",
    "AgentTuningSection",
    "BestStep",
    "EvaluatorCallback",
    "GeneralFloor",
    "GeneralLossEvaluator",
    "Policy",
    "ReplayEvaluator",
    "Schedule",
    "SourceSpec",
    "build_mix",
]

_MODULES = {
    "AgentTaskEvaluator": "evaluators.agent_tasks",
    "AgentTuningArgs": "agenttuning_plugin.args",
    "AgentTuningPlugin": "agenttuning_plugin.plugin",
    "AgentTuningSection": "agenttuning_plugin.args",
    "BestStep": "evaluators.guards",
    "EvaluatorCallback": "evaluators.callback",
    "GeneralFloor": "evaluators.guards",
    "GeneralLossEvaluator": "evaluators.general_loss",
    "Policy": "evaluators.schedule",
    "ReplayEvaluator": "evaluators.replay",
    "Schedule": "evaluators.schedule",
    "SourceSpec": "dataset_builders.reading.sources",
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
