"""Run the arms of a sweep: several at a time, in processes that end with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from agenttuning_plugin.sweeps.arm_process import BUSY
from agenttuning_plugin.sweeps.plan import Arm
from agenttuning_plugin.sweeps.progress import Progress
from agenttuning_plugin.sweeps.state import is_finished

_POLL_SECONDS = 0.2
_SECONDS_TO_END = 20.0
_SECONDS_BETWEEN_TRIES = 5.0


@dataclass(frozen=True, slots=True)
class Jobs:
    """How arms run.

    Attributes:
        number: Arms at a time.
        threads: CPU threads of each.
        gpus: GPUs, by number or id, of which each arm gets one, that with the fewest arms; none:
            each arm sees all.
    """

    number: int = 1
    threads: int = 1
    gpus: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """Finished and failed arms.

    Attributes:
        finished: Arms that are finished now.
        failed: Exit status of the others.
    """

    finished: list[str] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Job:
    arm: Arm
    process: subprocess.Popen[bytes]
    started: float
    gpu: str | None


def run_arms(out: Path, arms: Sequence[Arm], jobs: Jobs, say: Callable[[str], None]) -> Outcome:
    """Train all arms that are not finished; a failed one does not stop the others.

    An arm that another process trains is waited for.

    Args:
        out: Folder of the sweep.
        arms: From `plan_arms`, written by `write_plan`.
        jobs: How they run.
        say: Called with each line of progress.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM arrived; the arms' processes have been ended.
    """
    return _Runner(out, arms, jobs, say).run()


class _Runner:
    def __init__(
        self, out: Path, arms: Sequence[Arm], jobs: Jobs, say: Callable[[str], None]
    ) -> None:
        self._out, self._jobs = out, jobs
        self._waiting = [arm for arm in arms if not is_finished(arm.folder)]
        self._not_before: dict[str, float] = {}
        self._running: list[_Job] = []
        self._outcome = Outcome([arm.name for arm in arms if is_finished(arm.folder)])
        self._progress = Progress(len(arms), len(self._outcome.finished), jobs.number, say)

    def run(self) -> Outcome:
        with _interruptible():
            try:
                while self._waiting or self._running:
                    while len(self._running) < self._jobs.number and (arm := self._next()):
                        self._start(arm)
                    time.sleep(_POLL_SECONDS)
                    for job in [each for each in self._running if each.process.poll() is not None]:
                        self._running.remove(job)
                        self._end(job, job.process.returncode)
            finally:
                _end_all([job.process for job in self._running])
        return self._outcome

    def _next(self) -> Arm | None:
        now = time.monotonic()
        ready = (arm for arm in self._waiting if self._not_before.get(arm.name, 0) <= now)
        return next(ready, None)

    def _start(self, arm: Arm) -> None:
        self._waiting.remove(arm)
        taken = [job.gpu for job in self._running]
        gpu = min(self._jobs.gpus, key=taken.count, default=None)
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._jobs.threads),
            "AXOLOTL_DO_NOT_TRACK": "1",
            "DO_NOT_TRACK": "1",
        }
        if gpu is not None:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        module = "agenttuning_plugin.sweeps.arm_process"
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(self._out), arm.name],
            stdin=subprocess.PIPE,  # Closed when this process ends, however it does.
            env=variables,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the group.
        )
        self._running.append(_Job(arm, process, time.monotonic(), gpu))
        if arm.name not in self._not_before:
            self._progress.started(arm, gpu)

    def _end(self, job: _Job, status: int) -> None:
        if job.process.stdin is not None:
            job.process.stdin.close()
        if status == BUSY:
            if job.arm.name not in self._not_before:
                self._progress.busy(job.arm)
            self._waiting.append(job.arm)
            self._not_before[job.arm.name] = time.monotonic() + _SECONDS_BETWEEN_TRIES
        elif status == 0:
            self._outcome.finished.append(job.arm.name)
            self._progress.finished(job.arm, time.monotonic() - job.started)
        else:
            self._outcome.failed[job.arm.name] = status
            self._progress.failed(job.arm, status)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End process groups with SIGTERM, after a timeout with SIGKILL.

    Not with SIGINT, on which Axolotl saves its model and ends with status 0, as a finished run.
    """
    deadline = time.monotonic() + _SECONDS_TO_END
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
