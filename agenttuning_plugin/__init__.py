"""AgentTuning for Axolotl and TRL: trainer adapters and the command line.

Importing this package loads neither torch nor a trainer; names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_builders.lazy_exports import lazy_exports

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agenttuning_plugin.config.recipe import AgentTuningArgs as AgentTuningArgs
    from agenttuning_plugin.config.recipe import AgentTuningSection as AgentTuningSection
    from agenttuning_plugin.config.section import AgentTuningConfig as AgentTuningConfig
    from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback as EndpointCallback
    from agenttuning_plugin.trainers.axolotl import AgentTuningPlugin as AgentTuningPlugin
    from agenttuning_plugin.training_data.run import TrainingRun as TrainingRun
    from agenttuning_plugin.training_data.trainer_checks import sft_defaults as sft_defaults
    from dataset_builders.environments.base import TextEnvironment as TextEnvironment
    from dataset_builders.environments.dialogue import Dialogue as Dialogue
    from dataset_builders.environments.tool_environment import ToolEnvironment as ToolEnvironment
    from dataset_builders.environments.tool_functions import tool as tool
    from dataset_builders.errors import AgentTuningError as AgentTuningError
    from dataset_builders.mixing.mixes import build_mix as build_mix
    from dataset_builders.sources.loading import SourceSpec as SourceSpec
    from evaluators.evaluator import Evaluator as Evaluator
    from evaluators.runner import run_evaluator as run_evaluator
    from evaluators.tasks.agent_task import AgentTaskEvaluator as AgentTaskEvaluator
    from evaluators.tasks.general_kl import GeneralKLEvaluator as GeneralKLEvaluator
    from evaluators.tasks.general_loss import GeneralLossEvaluator as GeneralLossEvaluator
    from evaluators.tasks.replay import ReplayEvaluator as ReplayEvaluator
    from evaluators.training.callback import EvaluatorCallback as EvaluatorCallback
    from evaluators.training.floors import BestCheckpoint as BestCheckpoint
    from evaluators.training.floors import ScoreFloor as ScoreFloor
    from evaluators.training.schedule import EvaluationPolicy as EvaluationPolicy
    from evaluators.training.schedule import Schedule as Schedule
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__, "eval", {"AgentTuningPlugin": "axolotl"})
