"""Order of both callbacks at the end of training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from transformers import TrainerControl
from transformers.trainer_callback import CallbackHandler, ProgressCallback

from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback
from evaluators.training.callback import EvaluatorCallback
from evaluators.training.callback_order import report_at_end


def test_both_callbacks_come_before_others_and_keep_their_order() -> None:
    progress = ProgressCallback()
    ours = [
        EvaluatorCallback.__new__(EvaluatorCallback),
        EndpointCallback.__new__(EndpointCallback),
    ]
    handler = CallbackHandler([], None, None, None, None)
    handler.callbacks = [progress, *ours]
    trainer: Any = SimpleNamespace(callback_handler=handler)
    for callback in ours:
        report_at_end(trainer, callback, TrainerControl(should_training_stop=True))
    assert handler.callbacks == [*ours, progress]
