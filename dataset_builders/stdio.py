"""Suppress start-up messages of other packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

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
    """Discard output to stdout, also of child processes; stderr and exceptions pass."""
    sys.stdout.flush()
    saved = os.dup(1)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # not a file
        os.dup2(nowhere.fileno(), 1)
        try:
            # Both: `sys.stdout` may not be the descriptor.
            with redirect_stdout(nowhere):
                yield
        finally:
            os.dup2(saved, 1)
            os.close(saved)


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
