"""Run an environment in its own process, where it may leak, hang or crash safely."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import EnvironmentFailureError

if TYPE_CHECKING:
    from dataset_builders.environments import EnvironmentSpec

TIME_LIMIT = 120.0
"""Time limit of a call in seconds, and of starting the process."""

MAX_EPISODES = 50
"""Episodes per process: TextWorld's planner leaks memory with every game it loads."""

MAX_NOISE = 1_000_000
"""Bytes of the child's error output that are kept; its last line explains how it died."""

_GRACE = 2.0
_PREFIX = "agenttuning-of-"
_TOLD = ("world", "agentinstruct_task", "round_limit", "max_new_tokens")
_HOST = "from dataset_builders.environments import isolation_host; isolation_host.main()"


class IsolatedDialogue(Dialogue):
    """A dialogue that runs in a child process, with the interface of any other.

    The child is started by the first call that needs it. It ends with `close`, and with this
    process however that ends, `kill -9` included (see `isolation_host`). Its output is discarded;
    of its error output the last line is shown if it dies. Its temporary files are deleted with it.
    An object may be used by one thread at a time.

    Args:
        spec: The environment to play.
        prompt: Its prompt template, from `spec.wording()`.
        time_limit: Seconds per call, after which the child is killed.
        max_episodes: Episodes after which the child is replaced.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        prompt: Prompt,
        *,
        time_limit: float = TIME_LIMIT,
        max_episodes: int = MAX_EPISODES,
    ) -> None:
        # Creating it starts nothing: here it only provides metadata.
        local = spec.dialogue(spec.world(), prompt)
        super().__init__(local.env, local.prompt)
        for name in _TOLD:
            setattr(self, name, getattr(local, name))
        self._played, self._wording = spec, prompt
        self.time_limit = time_limit
        self.max_episodes = max_episodes
        self._child: _Child | None = None
        self._episodes = 0

    @property
    def process_id(self) -> int | None:
        """Process id of the child, or None while there is none."""
        return self._child.process.pid if self._child else None

    def read(self, said: str) -> str | None:
        """See `Dialogue.read`."""
        action: str | None = self._call("read", said)
        return action

    def write(self, move: OracleStep) -> str:
        """See `Dialogue.write`."""
        turn: str = self._call("write", move)
        return turn

    def tools(self) -> str:
        """See `Dialogue.tools`."""
        return str(self._call("tools"))

    def assistant_message(self, said: Answer) -> Message:
        """See `Dialogue.assistant_message`."""
        message: Message = self._call("assistant_message", said)
        return message

    def observation_messages(self, observation: str) -> tuple[Message, ...]:
        """See `Dialogue.observation_messages`."""
        messages: tuple[Message, ...] = self._call("observation_messages", observation)
        return messages

    def opening(self) -> tuple[Message, ...]:
        """See `Dialogue.opening`."""
        opening: tuple[Message, ...] = self._call("opening")
        return opening

    def state_digest(self) -> str | None:
        """See `Dialogue.state_digest`."""
        digest: str | None = self._call("state_digest")
        return digest

    def trim(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """See `Dialogue.trim`."""
        shown: tuple[Message, ...] = self._call("trim", tuple(messages))
        return shown

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `Dialogue.reset`; replaces a child that died, hung or reached its episode limit.

        Raises:
            EnvironmentFailureError: The child died or took longer than the limit.
        """
        if self._episodes >= self.max_episodes:
            self.close()
        self._episodes += 1
        turn, info = self._call("reset", seed=seed, options=options)
        return turn, info

    def step(self, turn: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.step`; raises what `reset` raises."""
        if self._child is None:
            raise EnvironmentFailureError(f"{self.name}: no episode is running; call reset")
        feedback, reward, over, truncated, info = self._call("step", turn)
        return feedback, reward, over, truncated, info

    def stop(
        self, exit_reason: str, *, valid_format: bool, truncated: bool = False
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `Dialogue.stop`; raises what `reset` raises."""
        ended: tuple[str, float, bool, bool, dict[str, Any]] = self._call(
            "stop", exit_reason, valid_format=valid_format, truncated=truncated
        )
        return ended

    def oracle(self) -> Generator[str, str, None]:
        """See `Dialogue.oracle`."""
        turn: str | None = self._call("oracle")
        while turn is not None:
            turn = self._call("oracle", (yield turn))

    def close(self) -> None:
        """End the child and its episode; may be called more than once."""
        self._end(_GRACE)

    def _end(self, grace: float) -> None:
        child, self._child = self._child, None
        self._episodes = 0
        if child is not None:
            self._left_behind.detach()
            child.end(grace)

    def _call(self, method: str, *arguments: Any, **settings: Any) -> Any:
        if self._child is None:
            self._child = _Child(self._played, self._wording)
            # For a forgotten `close`, and for a program that exits without it.
            self._left_behind = weakref.finalize(self, self._child.end, 0.0)
        try:
            return self._child.call(method, arguments, settings, self.time_limit)
        except _LostError as error:
            self._end(0.0)
            raise EnvironmentFailureError(f"{self.name}: {method}: {error}") from None


def _sweep() -> None:
    """Remove folders that children of killed processes left; a reused pid only delays this."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists() and Path("/proc/1").exists():
            shutil.rmtree(folder, ignore_errors=True)


class _LostError(Exception):
    """The child cannot be used any more."""


class _Child:
    """A running `isolation_host`, with its pipe and its folder."""

    def __init__(self, spec: EnvironmentSpec, prompt: Prompt) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        # Appended to, so that it can be emptied while the child has it open.
        self.noise: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self.pipe, theirs = Pipe()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "TMPDIR": str(self.folder),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOST, str(theirs.fileno())],
            # Nothing is ever written to it: its closing signals the child to exit.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.noise,
            pass_fds=[theirs.fileno()],
            env=environment,
            # Ctrl-C in a terminal reaches only the parent, which may finish running work.
            start_new_session=True,
        )
        theirs.close()
        self.started = False
        with suppress(OSError):  # If it died immediately, the first call reports it.
            self.pipe.send((spec, prompt))

    def call(
        self, method: str, arguments: tuple[Any, ...], settings: dict[str, Any], limit: float
    ) -> Any:
        try:
            if not self.started:
                if not self.pipe.poll(TIME_LIMIT):
                    raise _LostError(f"not started within {TIME_LIMIT:g} s; its process is killed")
                self.pipe.recv()
                self.started = True
            self.pipe.send((method, arguments, settings))
            if not self.pipe.poll(limit):
                raise _LostError(f"no answer within {limit:g} s; its process is killed")
            failure, result = self.pipe.recv()
        except (EOFError, OSError):
            raise _LostError(f"its process died ({self._epitaph()})") from None
        if os.fstat(self.noise.fileno()).st_size > MAX_NOISE:
            os.ftruncate(self.noise.fileno(), 0)
        if failure is not None:
            raise failure
        return result

    def end(self, grace: float) -> None:
        """Kill the process and its descendants, and delete its folder."""
        self.pipe.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.noise.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _epitaph(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        self.noise.seek(0)
        lines = self.noise.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return f"exit code {self.process.returncode}: {last[:300]}"
