"""Evaluation: measure a model and report figures with their uncertainty.

Evaluators run inside training as a trainer callback, or alone on a checkpoint. This layer imports
the data layer but no trainer plugin. Held-out environments live only here, so that the data layer
cannot build training data from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_builders.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from evaluators.evaluator import EvalResult as EvalResult
    from evaluators.evaluator import Evaluator as Evaluator
    from evaluators.evaluator import Metric as Metric
    from evaluators.models.interface import Decoding as Decoding
    from evaluators.models.target import EvalTarget as EvalTarget
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
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
