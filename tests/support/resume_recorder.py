"""Writes down every micro batch that a trainer trains on, and kills the process at one of them.

A helper of test_resume.py and of the tests in invariants; it runs in the training processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from transformers import TrainerCallback

RECORD, KILL, GRADIENTS = "RESUME_RECORD", "RESUME_KILL", "RESUME_GRADIENTS"
"""Environment: file of the record, to which the rank is added; step and micro batch of death; file
of the gradients of each step, to which the step is added."""


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
        if rank == 0 and os.environ.get(GRADIENTS):
            trainer.add_callback(GradientRecorder(os.environ[GRADIENTS]))

    def __call__(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Train on a micro batch, then write it down."""
        step = self._trainer.state.global_step
        self._step, self._micro = step, self._micro + 1 if step == self._step else 0
        shape, digest = list(inputs["input_ids"].shape), digest_of(inputs)
        rows = rows_of(inputs, self._trainer.processing_class.pad_token_id)
        loss = self._train(model, inputs, num_items_in_batch)
        line = {
            "step": step,
            "micro": self._micro,
            "shape": shape,
            "batch": digest,
            "rows": rows,
            "loss": float(loss).hex(),
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        if (step, self._micro) == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss


class GradientRecorder(TrainerCallback):  # type: ignore[misc]
    """Stores the gradient of each optimizer step, summed over micro batches and processes.

    Args:
        path: File name, to which the step is added.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Called by the trainer with the model."""
        from safetensors.torch import save_file

        named = rest["model"].named_parameters()
        found = {n: p.grad.clone().float() for n, p in named if p.grad is not None}
        save_file(found, f"{self._path}.{state.global_step}")


def rows_of(inputs: Any, pad: int) -> list[str]:
    """Hash of each row's ids and labels, without the padding at its end."""
    rows = []
    for ids, labels in zip(inputs["input_ids"].tolist(), inputs["labels"].tolist(), strict=True):
        length = next((i for i in range(len(ids), 0, -1) if ids[i - 1] != pad), 0)
        text = repr((ids[:length], labels[:length])).encode()
        rows.append(hashlib.sha256(text).hexdigest()[:16])
    return rows


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
            `environment`, variables to set; optionally `ranks`, the number of processes that
            train together, by default one.
        train: Trains.
    """
    for run in runs:
        children = [_fork(run, rank, train) for rank in range(run.get("ranks", 1))]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(next((code for code in codes if code), 0), flush=True)


def _fork(run: dict[str, Any], rank: int, train: Callable[[str], None]) -> int:
    """Start one of a run's processes, with the variables that torchrun would set."""
    ranks = run.get("ranks", 1)
    if ranks > 1 and rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            run["environment"] |= {"MASTER_PORT": str(free.getsockname()[1])}
    pid = os.fork()
    if pid == 0:
        if ranks > 1:
            _join_group(rank, ranks)
        os._exit(_child(run, train))
    return pid


def _join_group(rank: int, ranks: int) -> None:
    from accelerate.state import AcceleratorState

    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ.update({name: str(value) for name, value in variables.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    # What was imported may have asked for the state of a single process.
    AcceleratorState._reset_state(reset_partial_state=True)


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
