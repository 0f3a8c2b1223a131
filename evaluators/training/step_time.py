"""Estimate the time of a training step before the first one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from evaluators.models.eval_mode import evaluation_mode

if TYPE_CHECKING:
    from transformers import Trainer

    from evaluators.models.target import EvalTarget

_log = logging.getLogger(__name__)

_BACKWARD = 3.0
"""Cost of forward and backward pass, in forward passes: the backward one costs two."""


def estimate_step_seconds(trainer: Trainer, subject: EvalTarget) -> float:
    """Estimate the seconds of an optimizer step from one forward pass over the first batch.

    Training is not affected: the batch is taken from the dataset itself, not from the trainer's
    loader, and the model's state is restored.

    Returns:
        The estimate; 0 if the data cannot be indexed, such as when streamed, if the pass fails, or
        if the model is sharded.
    """
    if subject.in_step is not None:
        return 0.0
    size = trainer.args.per_device_train_batch_size
    try:
        with evaluation_mode(subject):  # The collator may use random numbers, too.
            data: Any = trainer.train_dataset
            batch = trainer.data_collator([data[number] for number in range(min(size, len(data)))])
            inputs = {
                key: value.to(subject.device)
                for key, value in batch.items()
                if key in ("input_ids", "attention_mask", "position_ids")
            }
            subject.model(**inputs, use_cache=False)  # warm-up
            begun = time.monotonic()
            subject.model(**inputs, use_cache=False)
            _wait_for(subject.device)
            seconds = time.monotonic() - begun
    except Exception:
        # An estimate must not break a run; without it the first evaluation is small.
        _log.info("no estimate of a training step's time", exc_info=True)
        return 0.0
    return seconds * _BACKWARD * trainer.args.gradient_accumulation_steps


def _wait_for(device: Any) -> None:
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
