"""Suppress start-up messages of other packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from threading import Lock

from dataset_builders.extras import needs_extra


@contextmanager
def silenced() -> Iterator[None]:
    """Discard output to stdout and stderr; exceptions propagate.

    On the level of file descriptors: Axolotl, torch and torchao write through handlers
    and extensions that replacing `sys.stdout` does not reach. Their messages on import
    would bury a one-line answer, or make JSON unreadable.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # not a file
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Discard output to stdout, also of child processes; stderr and exceptions pass.

    Threads may be in it at once: the first one discards, and the last one restores.
    """
    with _QUIET.lock:
        _QUIET.inside += 1
        if _QUIET.inside == 1:
            _QUIET.begin()
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.inside -= 1
            if not _QUIET.inside:
                _QUIET.end()


class _Quiet:
    """What `quiet_stdout` replaced, and how many are inside."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.inside = 0
        self._restore = ExitStack()

    def begin(self) -> None:
        sys.stdout.flush()
        saved = os.dup(1)
        self._restore.callback(os.close, saved)
        self._restore.callback(os.dup2, saved, 1)
        nowhere = Path(os.devnull).open("w")  # noqa: SIM115  # closed by `end`
        self._restore.callback(nowhere.close)
        os.dup2(nowhere.fileno(), 1)
        # Both: `sys.stdout` may not be the descriptor.
        self._restore.enter_context(redirect_stdout(nowhere))

    def end(self) -> None:
        self._restore.close()


_QUIET = _Quiet()


@contextmanager
def without_bars() -> Iterator[None]:
    """Disable transformers' progress bars, such as when loading a model from disk.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    with needs_extra("eval"), silenced():
        from transformers.utils import logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
