"""Run code that a user wrote: exceptions become one line, and output is discarded."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.stdio import quiet_stdout
from dataset_builders.user_code import one_line

_T = TypeVar("_T")


TIME_LIMIT = 120.0
"""Seconds that an import, a constructor or a list of tasks may take in the main thread."""


def guarded(place: str, what: str, call: Callable[[], _T]) -> _T:
    """Run code of an environment's author; an exception becomes one line, output is discarded.

    Args:
        place: The reference, for the error.
        what: What is run, such as "__init__".
        call: Runs it.

    Raises:
        ConfigError: The code raised, or took longer than the limit.
    """
    try:
        with quiet_stdout(), _alarm():
            return call()
    except _HangError:
        raise ConfigError(f"{place}: {what}: no end within {TIME_LIMIT:g} s") from None
    except AgentTuningError:
        raise
    except ModuleNotFoundError as error:
        hint = "" if error.name and place.startswith(error.name) else f" (imported by {place})"
        raise ConfigError(f"no module named {error.name!r}{hint}") from error
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{place}: {what} raised {one_line(error)}") from error


class _HangError(BaseException):
    """Not an `Exception`, so that the code's own handlers do not catch it."""


@contextmanager
def _alarm() -> Iterator[None]:
    """Raise `_HangError` at the limit; in other threads their callers have limits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _HangError

    begun = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    # Another timer, such as pytest-timeout's, continues afterwards.
    left, interval = signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(
                signal.ITIMER_REAL, max(left - (time.monotonic() - begun), 1e-3), interval
            )
