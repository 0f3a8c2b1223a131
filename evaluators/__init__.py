"""Measurement: a model in, numbers with their uncertainty out.

Evaluators run inside training as a trainer callback, or alone on a checkpoint. This
layer knows the data layer and no trainer plugin. Held-out environments live here and
only here, so that the data layer cannot build training data from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluators.evaluator import EvalResult, Evaluator, Metric
    from evaluators.models.interface import Decoding
    from evaluators.models.target import EvalTarget
    from evaluators.runner import run_evaluator
    from evaluators.tasks.agent_task import AgentTaskEvaluator
    from evaluators.tasks.general_loss import GeneralLossEvaluator
    from evaluators.tasks.replay import ReplayEvaluator
    from evaluators.training.callback import EvaluatorCallback
    from evaluators.training.floors import BestCheckpoint, ScoreFloor
    from evaluators.training.schedule import EvaluationPolicy, Schedule

__all__ = [
    "AgentTaskEvaluator",
    "BestCheckpoint",
    "Decoding",
    "EvalResult",
    "EvalTarget",
    "EvaluationPolicy",
    "Evaluator",
    "EvaluatorCallback",
    "GeneralLossEvaluator",
    "Metric",
    "ReplayEvaluator",
    "Schedule",
    "ScoreFloor",
    "run_evaluator",
]

_MODULES = {
    "AgentTaskEvaluator": "evaluators.tasks.agent_task",
    "BestCheckpoint": "evaluators.training.floors",
    "Decoding": "evaluators.models.interface",
    "EvalResult": "evaluators.evaluator",
    "Evaluator": "evaluators.evaluator",
    "EvaluatorCallback": "evaluators.training.callback",
    "ScoreFloor": "evaluators.training.floors",
    "GeneralLossEvaluator": "evaluators.tasks.general_loss",
    "Metric": "evaluators.evaluator",
    "EvaluationPolicy": "evaluators.training.schedule",
    "ReplayEvaluator": "evaluators.tasks.replay",
    "Schedule": "evaluators.training.schedule",
    "EvalTarget": "evaluators.models.target",
    "run_evaluator": "evaluators.runner",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: torch takes seconds to load."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
