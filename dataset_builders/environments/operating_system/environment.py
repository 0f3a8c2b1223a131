"""AgentBench's operating system task (OS): a real shell in a real sandbox.

Differences from AgentBench, which uses Docker, an Ubuntu image and a terminal:

- The system is a small Debian without network (`sandbox`); `apt-get install` finds only the
  packages that `sandbox.rootfs` stored.
- The shell has no terminal, so its output has no echo, prompt and colors; control characters that a
  program still writes are removed.
- A command that writes nothing for five seconds is not just abandoned but killed, with all other
  processes of the box; so is one that takes longer than a minute. The next command gets a new
  shell.
- A command has nothing to read; `su` starts a shell that the next commands go to.
- A check's script hands on what it wrote to standard output, without its warnings.
- A size that is written like the reference's passes (see `checks`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal

from dataset_builders.cleaning.terminal import plain_text
from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.data import find_data
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.environments.operating_system.checks import passes
from dataset_builders.environments.operating_system.tasks import (
    TRAINING_FILE,
    NamedCheck,
    Script,
    Task,
    load_tasks,
)
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from dataset_builders.sandbox import engines
from dataset_builders.sandbox.base import ExecResult, Limits, Sandbox

BASH = "bash"
FINISH = "finish"
ANSWER = "answer"

OUTPUT_CHARS = 800
"""Maximum characters of an output that is shown whole."""
CUT_CHARS = 780
"""Characters shown of a longer one."""

_CHANGED_FILES = Script(
    "bash",
    r'find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o -newerct "@$1" '
    r'-printf "%p %y %s %T@ %m %U %l\n"',
)
"""Lists the files that changed since a time; a removed one shows in its folder."""

SILENCE_SECONDS = 5.0
COMMAND_SECONDS = 60.0
SCRIPT_SECONDS = 120.0

_WHAT = "AgentBench's data/os_interaction (dev.json, 1 to 7, train_0317)"
_COUNTS_PROCESSES = re.compile(r"(?!.*grep).*\bps\b", re.DOTALL)
_OPENS_SHELL = re.compile(r"(?:^|[;&|\n])\s*(?:sudo\s+)?su(?:\s+-l?)?(?:\s+[\w-]+)?\s*\Z")


@dataclass(frozen=True, slots=True)
class _Episode:
    task: Task
    box: Sandbox
    begun: float


class OperatingSystemEnvironment(TextEnvironment):
    """Questions about, and changes to, a Linux system.

    An action is `bash`, a line break and a script; `answer`, a line break and the answer;
    or `finish`. The score is 1 if the answer matches, or if all of the task's checks pass,
    else 0. In addition to the base class, `info` has `truncated` (whether the
    observation is only the beginning) and `timed_out`. Exit reason: "answered" or
    "finished".

    Args:
        data: Folder of AgentBench's tasks; see `data.find_data`.
        render_mode: Gymnasium's; unused, nothing is rendered.
        silence_seconds: Time without output after which a command is stopped. AgentBench's
            is five; a slow machine may need more.
        dialogue: "text", or "tools" for tool calls in the format of AgentBench's function-calling
            version; `EnvironmentSpec` chooses the dialogue by it.
    """

    name: ClassVar[str] = "os"
    isolation: Isolation = "thread"
    data_names: ClassVar[tuple[str, ...]] = ("os_interaction",)
    idle_action: ClassVar[str] = f"{BASH}\ntrue"

    _episode: _Episode | None = None

    def __init__(
        self,
        data: str | Path | None = None,
        render_mode: str | None = None,
        silence_seconds: float = SILENCE_SECONDS,
        dialogue: Literal["text", "tools"] = "text",
    ) -> None:
        del dialogue
        super().__init__(data, render_mode)
        if silence_seconds <= 0:
            raise ConfigError(f"os: silence_seconds: found {silence_seconds}, expected more than 0")
        self._silence = silence_seconds

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """Return why the environment cannot run here: no sandbox, or no tasks."""
        try:
            cls._folder(data)
        except FileNotFoundError as error:
            return str(error)
        return engines.missing()

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Install what sandboxes need.

        Raises:
            MissingExtraError: Neither bubblewrap nor Docker can be used here.
            SandboxError: A program fails.
        """
        del data
        engines.setup(say)

    @classmethod
    def _folder(cls, data: str | Path | None) -> Path:
        return find_data(cls.name, data, cls.data_names, (TRAINING_FILE,), _WHAT)

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "os-train-0000" and "os-test-4-N41-002"."""
        return tuple(load_tasks(self._folder(self.data), split))

    def oracle(self) -> Oracle:
        """Yield the reference solution, then its output as the answer.

        Raises:
            EnvironmentFailureError: The data has neither a solution nor an answer.
        """
        task = self._current().task
        if task.gold is not None:
            code = task.gold.code
            # The check counts its own process too, so this must be a separate process.
            script = f"(\n{code}\n)" if _COUNTS_PROCESSES.match(code) else code
            output = yield OracleStep("I run what solves this.", f"{BASH}\n{script}")
            answer = output.strip()
            if NamedCheck("integer-match") in task.checks:
                # Earlier lines are warnings, such as about a process that ended in the meantime.
                answer = answer.rpartition("\n")[2]
            # Output that a change prints is not an answer. Some questions have an answer of
            # several lines, for which the dialogue's format has no room.
            asked = task.match is not None or None in task.checks or "\n" not in answer
            if answer and asked:
                yield OracleStep("The output has the answer.", f"{ANSWER}\n{answer}")
            else:
                yield OracleStep("That is done.", FINISH)
        elif task.match is not None and task.match.answer is not None:
            yield OracleStep("The answer is known.", f"{ANSWER}\n{task.match.answer}")
        else:
            raise EnvironmentFailureError(f"{task.task_id}: the data has no solution")

    def state_digest(self) -> str | None:
        """Return a hash of the files changed so far; see `TextEnvironment.state_digest`.

        Processes and variables of the shell are not covered.
        """
        listed = self._run(_CHANGED_FILES, str(self._current().begun))
        return sha256(f"{listed.returncode}\n{listed.stdout}".encode()).hexdigest()

    def _begin(self, task_id: str) -> ResetResult:
        task = self._find(task_id)
        begun = time.time()
        self._episode = _Episode(task, engines.open_sandbox(Limits()), begun)
        try:
            # The shell starts before the scripts that may change its profile, as in AgentBench.
            self._run_shell("true", keep_input=False)
            for script in task.init:
                self._run(script)
            if task.start is not None:
                self._run_shell(task.start.code, keep_input=True)
        except BaseException:
            self._end()
            raise
        info = {"truncated": False, "timed_out": False}
        return ResetResult(task.description, task.description, info)

    def _find(self, task_id: str) -> Task:
        split = task_id.split("-")[1] if task_id.startswith("os-") else ""
        tasks = load_tasks(self._folder(self.data), split) if split else {}
        if task_id not in tasks:
            expected = "one such as os-train-0000"
            raise ConfigError(f"task {task_id!r} is unknown; expected {expected}")
        return tasks[task_id]

    def _act(self, action: str) -> StepResult:
        task = self._current().task
        kind, _, content = action.partition("\n")
        if kind == BASH:
            keep_input = _OPENS_SHELL.search(content) is not None
            return self._run_shell(content, keep_input=keep_input)
        if kind not in (FINISH, ANSWER):
            return StepResult("The action is none of bash, finish and answer.", valid=False)
        answer = content if kind == ANSWER else None
        solved = self._judge(task, answer)
        exit_reason = "answered" if kind == ANSWER else "finished"
        return StepResult(exit_reason=exit_reason, score=float(solved))

    def _run_shell(self, script: str, *, keep_input: bool) -> StepResult:
        result = self._current().box.run_shell(
            script, silence=self._silence, timeout=COMMAND_SECONDS, keep_input=keep_input
        )
        text = plain_text(result.output)
        truncated = len(text) > OUTPUT_CHARS
        info = {"truncated": truncated, "timed_out": result.timed_out}
        return StepResult(text[:CUT_CHARS] if truncated else text, info=info)

    def _run(self, script: Script, *arguments: str) -> ExecResult:
        # Outside of the agent's shell, as in AgentBench.
        if script.language == "python":
            command = ["python3", "-c", script.code, *arguments]
        else:
            command = ["bash", "-c", script.code, "--", *arguments]
        # An answer may contain characters invalid in an argument: NUL and lone surrogates.
        command = [part.replace("\0", "").encode("utf-8", "replace").decode() for part in command]
        return self._current().box.exec(command, timeout=SCRIPT_SECONDS)

    def _judge(self, task: Task, answer: str | None) -> bool:
        if task.match is not None:
            given = answer.strip() if answer is not None and task.match.strip else answer
            if task.match.answer is not None:
                return given == task.match.answer
            pattern = task.match.regex or ""
            return given is not None and re.search(pattern, given) is not None
        # AgentBench converts the missing answer of `finish` to this text.
        outputs = [str(answer)]
        for check in task.checks:
            if isinstance(check, NamedCheck):
                if not passes(check.name, outputs[0], outputs[-1]):
                    return False
                outputs.append("")
                continue
            script = task.gold if check is None else check
            assert script is not None
            result = self._run(script, *outputs)
            if not result.success:
                return False
            outputs.append(result.stdout)
        return True

    def _end(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.box.close()

    def _current(self) -> _Episode:
        return require_episode(self._episode)
