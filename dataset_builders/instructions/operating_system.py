"""Self-Instruct for the os environment: task, setup, solution and check as shell scripts.

Records have the format of AgentBench's training tasks (`training.json`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.data import find_data
from dataset_builders.environments.operating_system.environment import (
    ANSWER,
    FINISH,
    OperatingSystemEnvironment,
)
from dataset_builders.environments.operating_system.tasks import TRAINING_FILE, load_tasks
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.instructions.files import read_list, write_json
from dataset_builders.instructions.proposals import Proposal, code_of, find, text_of
from dataset_builders.instructions.task_kinds import EVALUATION_SPLITS, Record

_CHECKERS = ("integer", "string", "size")
_FILE = "check/{}-match.py"


class OperatingSystemTasks:
    """Tasks of the os environment."""

    name: ClassVar[str] = "os"
    prompt: ClassVar[str] = "self_instruct_os"
    idlers: ClassVar[Sequence[Sequence[str]]] = (
        (FINISH,),
        (f"{ANSWER}\n",),
        (f"{ANSWER}\n0",),
    )

    def read(self, proposal: Proposal) -> Record:
        """Parse the task that a model proposes.

        Raises:
            DataError: A section is missing or invalid.
        """
        setup = find(proposal, "setup")
        solution = code_of(proposal, "solution")
        check = find(proposal, "check")
        if check is None:
            raise DataError("check: missing")
        record: Record = {
            "description": text_of(proposal, "task"),
            "create": {"init": (setup.code if setup else None) or ""},
        }
        if check.code is not None:
            scripts = [{"language": "bash", "code": code_of(proposal, "check")}]
            return record | {"evaluation": {"check": scripts, "example": {"code": solution}}}
        word = text_of(proposal, "check").strip(".`").lower()
        if word not in _CHECKERS:
            raise DataError(f"check: found {word!r}, expected one of {', '.join(_CHECKERS)}")
        checker = {"language": "python", "file": _FILE.format(word)}
        return record | {"evaluation": {"check": [None, checker], "example": solution}}

    def show(self, record: Record) -> str | None:
        """Format a task as `read` parses it; None if that is impossible."""
        evaluation = record.get("evaluation")
        if not isinstance(evaluation, Mapping) or "start" in record:
            return None
        setup = _script((record.get("create") or {}).get("init", ""))
        solution, check = _script(evaluation.get("example")), _check(evaluation.get("check"))
        if setup is None or not solution or check is None:
            return None
        parts = ["### Task", self.instruction(record), "### Setup", _fenced(setup)]
        return "\n".join([*parts, "### Solution", _fenced(solution), "### Check", check])

    def instruction(self, record: Record) -> str:
        """Return the task's own text."""
        return str(record["description"]).strip()

    def refuse(self, record: Record) -> str:
        """Accept every task: playing it is the only check."""
        del record
        return ""

    def write(self, folder: Path, records: Iterable[Record]) -> None:
        """Write tasks as AgentBench's training file."""
        write_json(folder / TRAINING_FILE, list(records))

    def environment(self, folder: Path) -> EnvironmentSpec:
        """Return the os environment with these tasks as its train split."""
        return load_environment(self.name, data=str(folder))

    def changes(self, record: Record) -> bool:
        """Whether scripts check the system; otherwise the answer is compared."""
        check = record.get("evaluation", {}).get("check")
        return isinstance(check, list) and None not in check

    def train_split(self, data: str | None) -> list[Record]:
        """Read training tasks of AgentBench's data, or of a file in that format.

        Raises:
            SourceNotFoundError: There are none here.
            DataError: The file is not a list of tasks.
        """
        if data is not None and Path(data).is_file():
            return read_list(Path(data), "description")
        return read_list(_folder(data) / TRAINING_FILE, "description")

    def evaluation(self) -> list[str]:
        """Return instructions of AgentBench's dev and test tasks, if available."""
        try:
            folder = _folder(None)
        except SourceNotFoundError:
            return []
        splits = (load_tasks(folder, split) for split in EVALUATION_SPLITS)
        return [task.description for tasks in splits for task in tasks.values()]


def _folder(data: str | None) -> Path:
    what = "AgentBench's data/os_interaction"
    names = OperatingSystemEnvironment.data_names
    return find_data(OperatingSystemEnvironment.name, data, names, [TRAINING_FILE], what)


def _script(value: Any) -> str | None:
    """Parse a script given as text or as {"code": text}; None for anything else."""
    code = value.get("code") if isinstance(value, Mapping) and set(value) == {"code"} else value
    return code.strip("\n") if isinstance(code, str) else None


def _check(value: Any) -> str | None:
    match value:
        case [None, {"file": str(file)}]:
            return next((word for word in _CHECKERS if file == _FILE.format(word)), None)
        case [{"language": "bash", "code": str(code)}]:
            return _fenced(code.strip("\n"))
    return None


def _fenced(script: str) -> str:
    return f"```bash\n{script}\n```"
