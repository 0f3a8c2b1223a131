"""Writes down every micro batch that a trainer trains on, and kills the process at one of them.

A helper of test_resume.py; it runs inside of the training processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

RECORD, KILL = "RESUME_RECORD", "RESUME_KILL"
"""Environment: file of the record, to which the rank is added; step and micro batch of death."""


class Recorder:
    """Stands before a trainer's `training_step`.

    Args:
        trainer: A Hugging Face Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._train = trainer.training_step
        self._step, self._micro = -1, 0
        rank = trainer.accelerator.process_index
        # Without a buffer, so that what was trained on outlives the process.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(f"{os.environ[RECORD]}.{rank}", flags)
        self._kill = tuple(int(part) for part in os.environ.get(KILL, "").split(":") if part)
        trainer.training_step = self

    def __call__(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Train on a micro batch, then write it down."""
        step = self._trainer.state.global_step
        self._step, self._micro = step, self._micro + 1 if step == self._step else 0
        shape, digest = list(inputs["input_ids"].shape), digest_of(inputs)
        loss = self._train(model, inputs, num_items_in_batch)
        line = {
            "step": step,
            "micro": self._micro,
            "shape": shape,
            "batch": digest,
            "loss": float(loss).hex(),
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        if (step, self._micro) == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss


def digest_of(inputs: Any) -> str:
    """Hash of all tensors of a batch: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(inputs.items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def fork_each(runs: Iterable[dict[str, Any]], train: Callable[[str], None]) -> None:
    """Train in one process after another, each forked from this one: imports are paid for once.

    Args:
        runs: Settings: `config`, what `train` gets; `log`, the file of the output;
            `environment`, variables to set.
        train: Trains.
    """
    for run in runs:
        pid = os.fork()
        if pid == 0:
            os._exit(_child(run, train))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _child(run: dict[str, Any], train: Callable[[str], None]) -> int:
    os.environ.update(run["environment"])
    log = os.open(run["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        train(run["config"])
    except BaseException:  # os._exit is next, which nothing may get past
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
