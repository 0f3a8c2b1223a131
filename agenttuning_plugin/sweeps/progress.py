"""Progress lines of a sweep, with an estimate of the remaining time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from agenttuning_plugin.console import duration
from agenttuning_plugin.sweeps.checkpoints import last_checkpoint
from agenttuning_plugin.sweeps.plan import Arm
from agenttuning_plugin.sweeps.state import LOG_FILE

_TAIL = 1 << 16
"""Bytes at the end of a log that are searched for its last error."""
_ERROR = re.compile(
    r"^(?:agenttuning: )?((?:\w+\.)*\w*(?:[Ee]rror|Exception|Interrupt): .+)$", re.M
)


class Progress:
    """Report started and finished arms, and estimate the end from the finished ones.

    Args:
        total: Arms of the sweep.
        finished: Arms that were finished before.
        jobs: Arms at a time.
        say: Called with each line.
    """

    def __init__(self, total: int, finished: int, jobs: int, say: Callable[[str], None]) -> None:
        self._total, self._done, self._jobs, self._say = total, finished, jobs, say
        self._seconds: list[float] = []
        if finished:
            say(f"{finished} of {total} arms are finished already")

    def started(self, arm: Arm, gpu: str | None) -> None:
        """Report that an arm starts."""
        where = f" on GPU {gpu}" if gpu is not None else ""
        checkpoint = last_checkpoint(arm.folder)
        what = f"resumes from {checkpoint.name}" if checkpoint else "training"
        self._say(f"{arm.name}: {what}{where}; log: {arm.folder / LOG_FILE}")

    def finished(self, arm: Arm, seconds: float) -> None:
        """Report that an arm has finished, and the estimated end of the sweep."""
        self._done += 1
        self._seconds.append(seconds)
        self._say(f"{arm.name}: finished in {duration(seconds)}; {self._state()}")

    def failed(self, arm: Arm, status: int) -> None:
        """Report that an arm has failed."""
        self._done += 1
        log = arm.folder / LOG_FILE
        cause = cause_of(log)
        stated = f": {cause}" if cause else ""
        self._say(
            f"{arm.name}: failed with exit status {status}{stated} (log: {log}); {self._state()}"
        )

    def busy(self, arm: Arm) -> None:
        """Report that another process trains an arm."""
        self._say(f"{arm.name}: another process trains it; waiting")

    def _state(self) -> str:
        state = f"{self._done} of {self._total} done"
        left = self._total - self._done
        if not left or not self._seconds:
            return state
        seconds = sum(self._seconds) / len(self._seconds) * -(-left // self._jobs)
        end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        return f"{state}, about {duration(seconds)} left (until {end})"


def cause_of(log: Path) -> str:
    """Return the last error that a log states, in one line; "" if it states none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # Of the last session only: the log has all of them.
    found = _ERROR.findall(text.rpartition("\n$ ")[2])
    return found[-1].strip()[:300] if found else ""
