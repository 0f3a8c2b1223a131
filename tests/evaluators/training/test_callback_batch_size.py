"""A trainer that looks for a batch size that fits begins anew; the base is measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.training.callback import EvaluatorCallback, Schedule  # noqa: E402
from tests.evaluators.training.test_callback import make_trainer, records, steps_logged  # noqa: E402
from tests.evaluators.training.test_callback_resume import Scored  # noqa: E402


class OutOfMemory(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Fails at a step as a GPU does whose memory is full, until a batch is small enough."""

    def __init__(self, fits: int, step: int) -> None:
        self.fits, self.step = fits, step
        self.sizes: list[int] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        size = rest["train_dataloader"].batch_sampler.batch_size
        if state.global_step == self.step:
            self.sizes.append(size)
            if size > self.fits:
                raise RuntimeError("CUDA out of memory.")


@pytest.mark.parametrize("step", [0, 1])
def test_the_base_is_measured_once(tiny_model_dir: Path, tmp_path: Path, step: int) -> None:
    rows = [{"input_ids": [7, n, n + 1], "labels": [7, n, n + 1]} for n in range(64)]
    trainer = make_trainer(
        tiny_model_dir, rows, tmp_path, steps=2, auto_find_batch_size=True, logging_steps=1
    )
    trainer.args.per_device_train_batch_size = 8
    trainer._train_batch_size = 8
    full = OutOfMemory(fits=5, step=step)
    trainer.add_callback(full)
    task = Scored("a", 0.5, 1.0)
    callback = EvaluatorCallback.install(trainer, [Schedule(task, every=1)])
    trainer.train()
    assert full.sizes == [8, 7, 6, 5]
    steps = [0, 1, 2] if step == 0 else [0, *[1] * 4, 2]
    assert len(task.measured) == len(steps)
    # The records are those of the run that fits, beside the one of the base.
    assert [(row["step"], row["metrics"]["success"]["value"]) for row in records(tmp_path)] == [
        (0, 0.5),
        (1, 1.0),
        (2, 1.0),
    ]
    assert steps_logged(trainer, "eval_a_success") == [0, 1, 2]
    assert steps_logged(trainer, "eval_a_success_change") == [1, 2]

    # A run that is started again by hand is another run.
    trainer.remove_callback(callback)
    trainer.args.auto_find_batch_size = False
    EvaluatorCallback.install(trainer, [Schedule(task, every=1)])
    trainer.train()
    assert len(task.measured) == len(steps) + 3
