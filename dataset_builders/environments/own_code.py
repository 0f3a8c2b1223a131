"""Run code that a user wrote: exceptions become one line, and output is discarded."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.stdio import quiet_stdout

_T = TypeVar("_T")


def guarded(place: str, what: str, call: Callable[[], _T]) -> _T:
    """Run code of an environment's author; an exception becomes one line, output is discarded.

    Args:
        place: The reference, for the error.
        what: What is run, such as "__init__".
        call: Runs it.

    Raises:
        ConfigError: The code raised.
    """
    try:
        with quiet_stdout():
            return call()
    except AgentTuningError:
        raise
    except ModuleNotFoundError as error:
        hint = "" if error.name and place.startswith(error.name) else f" (imported by {place})"
        raise ConfigError(f"no module named {error.name!r}{hint}") from error
    except SyntaxError as error:
        raise ConfigError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{place}: {what} raised {described(error)}") from error


def described(error: BaseException) -> str:
    """Return an exception's type, text and place, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300] + at
