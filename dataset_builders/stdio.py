"""Suppress start-up messages of other packages."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout

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


class _Quiet:
    """Redirection of stdout that overlapping users in several threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            sys.stdout.flush()
            saved = os.dup(1)
            self._undo.callback(os.close, saved)
            self._undo.callback(os.dup2, saved, 1)
            nowhere = self._undo.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)
            # Both: `sys.stdout` may not be the descriptor.
            self._undo.enter_context(redirect_stdout(nowhere))

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo.close()


_QUIET = _Quiet()


def quiet_stdout() -> AbstractContextManager[None]:
    """Discard output to stdout, also of child processes; stderr and exceptions pass.

    For the whole process: it may be entered by several threads at a time.
    """
    return _QUIET


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
