"""Interface between Self-Instruct and the tasks of an environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.instructions.files import read_text
from dataset_builders.instructions.proposals import Proposal, split_proposals

Record = dict[str, Any]
"""A task as stored in the environment's task files."""

EVALUATION_SPLITS = ("dev", "test")


class TaskKind(Protocol):
    """Tasks of one environment, in the model's format and in files.

    Attributes:
        name: The environment's registry name.
        prompt: Name of the prompt file.
        idlers: Actions of agents that must not pass, in addition to the environment's idle one.
    """

    name: ClassVar[str]
    prompt: ClassVar[str]
    idlers: ClassVar[Sequence[Sequence[str]]]

    def read(self, proposal: Proposal) -> Record:
        """Parse the task that a model proposes.

        Raises:
            DataError: A section is missing or invalid.
        """

    def show(self, record: Record) -> str | None:
        """Format a task as `read` parses it; None if that is impossible."""

    def instruction(self, record: Record) -> str:
        """Return the task's own text."""

    def refuse(self, record: Record) -> str:
        """Run the record's statements; return why they contradict one another, or ""."""

    def write(self, folder: Path, records: Iterable[Record]) -> None:
        """Write tasks as files that `environment` reads."""

    def environment(self, folder: Path) -> EnvironmentSpec:
        """Return the environment with these files as its train split."""

    def changes(self, record: Record) -> bool:
        """Whether the task requires a change of its environment, not an answer."""

    def train_split(self, data: str | None) -> list[Record]:
        """Read training tasks of the user's data.

        Raises:
            SourceNotFoundError: There are none here.
            DataError: A file is invalid.
        """

    def evaluation(self) -> list[str]:
        """Return instructions of the evaluation tasks available on this machine."""


def shipped_seeds(kind: TaskKind) -> list[Record]:
    """Return the built-in seed tasks, changes and questions."""
    name = f"seeds_{kind.name}.md"
    text = resources.files("dataset_builders.instructions").joinpath("prompts", name)
    return [kind.read(proposal) for proposal in split_proposals(text.read_text("utf-8"))]


def load_seeds(kind: TaskKind, source: str | None, data: str | None) -> list[Record]:
    """Load the seed tasks.

    Args:
        kind: Their kind.
        source: The user's own: a file in the models' format (`.md`), or in that of
            the environment's tasks. None: the built-in ones, and the train split if there is one.
        data: Folder or file of the train split.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: A task is invalid; names its number in a `.md` file.
    """
    if source is None:
        try:
            return shipped_seeds(kind) + kind.train_split(data)
        except SourceNotFoundError:
            if data is not None:
                raise
            return shipped_seeds(kind)
    if Path(source).suffix != ".md":
        return kind.train_split(source)
    seeds = []
    for number, proposal in enumerate(split_proposals(read_text(Path(source))), 1):
        try:
            seeds.append(kind.read(proposal))
        except DataError as error:
            raise DataError(f"{source}: task {number}: {error}") from error
    return seeds
