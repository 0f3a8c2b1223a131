"""Measurement: a model in, numbers with their uncertainty out.

Evaluators run inside training as a trainer callback, or alone on a checkpoint. This
layer knows the data layer and no trainer plugin. Held-out environments live here and
only here, so that the data layer cannot build training data from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluators.agent_tasks import AgentTaskEvaluator
    from evaluators.base import Evaluation, Evaluator, Metric
    from evaluators.callback import EvaluatorCallback
    from evaluators.decoding import Decoding
    from evaluators.general_loss import GeneralLossEvaluator
    from evaluators.guards import BestStep, GeneralFloor
    from evaluators.replay import ReplayEvaluator
    from evaluators.running import run_evaluator
    from evaluators.schedule import Policy, Schedule
    from evaluators.subject import Subject

__all__ = [
    "AgentTaskEvaluator",
    "BestStep",
    "Decoding",
    "Evaluation",
    "Evaluator",
    "EvaluatorCallback",
    "GeneralFloor",
    "GeneralLossEvaluator",
    "Metric",
    "Policy",
    "ReplayEvaluator",
    "Schedule",
    "Subject",
    "run_evaluator",
]

_MODULES = {
    "AgentTaskEvaluator": "evaluators.agent_tasks",
    "BestStep": "evaluators.guards",
    "Decoding": "evaluators.decoding",
    "Evaluation": "evaluators.base",
    "Evaluator": "evaluators.base",
    "EvaluatorCallback": "evaluators.callback",
    "GeneralFloor": "evaluators.guards",
    "GeneralLossEvaluator": "evaluators.general_loss",
    "Metric": "evaluators.base",
    "Policy": "evaluators.schedule",
    "ReplayEvaluator": "evaluators.replay",
    "Schedule": "evaluators.schedule",
    "Subject": "evaluators.subject",
    "run_evaluator": "evaluators.running",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: torch takes seconds to load."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
