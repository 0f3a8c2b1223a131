"""What Self-Instruct needs to know of an environment's tasks."""

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
"""A task as the environment's task files hold it."""

EVALUATION_SPLITS = ("dev", "test")


class TaskKind(Protocol):
    """Tasks of one environment: as a model writes them, and as files hold them.

    Attributes:
        name: The environment's registry name.
        prompt: Name of the prompt file.
        idlers: Actions of agents that must not pass, beside the environment's idle one.
    """

    name: ClassVar[str]
    prompt: ClassVar[str]
    idlers: ClassVar[Sequence[Sequence[str]]]

    def read(self, proposal: Proposal) -> Record:
        """The task that a model proposes.

        Raises:
            DataError: A section is missing or is not what it should be.
        """

    def show(self, record: Record) -> str | None:
        """A task in the form that `read` takes; None where it has no such form."""

    def instruction(self, record: Record) -> str:
        """The task's own text."""

    def refuse(self, record: Record) -> str:
        """Why the statements of the record contradict one another, or ""; runs them."""

    def write(self, folder: Path, records: Iterable[Record]) -> None:
        """Write tasks as files that `environment` reads."""

    def environment(self, folder: Path) -> EnvironmentSpec:
        """The environment with these files as its train split."""

    def changes(self, record: Record) -> bool:
        """Whether the task asks for a change of its world, not for an answer."""

    def train_split(self, data: str | None) -> list[Record]:
        """Training tasks of the user's data.

        Raises:
            SourceNotFoundError: There are none here.
            DataError: A file is not what it should be.
        """

    def evaluation(self) -> list[str]:
        """Instructions of the evaluation tasks that this machine has."""


def shipped_seeds(kind: TaskKind) -> list[Record]:
    """Tasks that come with the package, changes and questions, in our own words."""
    name = f"seeds_{kind.name}.md"
    text = resources.files("dataset_builders.instructions").joinpath("prompts", name)
    return [kind.read(proposal) for proposal in split_proposals(text.read_text("utf-8"))]


def load_seeds(kind: TaskKind, source: str | None, data: str | None) -> list[Record]:
    """Tasks to begin with.

    Args:
        kind: Their kind.
        source: The user's own: a file in the form that models write (`.md`), or in that of
            the environment's tasks. None: those that ship, and the train split where
            there is one.
        data: Folder or file of the train split.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: A task is not what it should be; names its number in a `.md` file.
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
