"""Write kept trajectories, in AgentInstruct's format and as `messages`.

A folder holds, for every AgentInstruct task that was collected into it:

- `data/<task>-00000-of-00001.parquet`: AgentInstruct's columns and the hub's layout. It is
  what is read where the whole folder is named, once;
- `jsonl/<task>.jsonl`: the same rows as JSON lines;
- `messages/<task>.jsonl`: the same conversations in the `messages` shape;
- `origins/<task>.jsonl`: of every row the task it came from, its reward and its end;
- `README.md` and `card/<task>.json`: what was collected, with what, and what it cost.

A dialogue with tools has calls and results, which AgentInstruct's format cannot hold: its parquet
file has the `messages` format, with `tools`, and there is no `jsonl/<task>.jsonl`. Likewise that of
an environment that is not the paper's, whose dialogue may begin with a system turn.

Files of other names may lie beside these, but data files (`.parquet`, `.json`, `.jsonl`)
neither in the folder itself nor in `data/`, for a reader would look at them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from dataset_builders.collection.card import DatasetCard, write_card
from dataset_builders.collection.folder import table_path
from dataset_builders.collection.tables import (
    agentinstruct_row,
    agentinstruct_schema,
    messages_row,
    messages_schema,
)
from dataset_builders.conversation import Conversation, Message
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.errors import StorageError
from dataset_builders.rollouts.episode import Trajectory

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SOURCE = "collected"
"""Source of every collected conversation."""

_BATCH_ROWS = 256


def conversations_of(
    number: int,
    trajectory: Trajectory,
    model: str = "",
    environment: EnvironmentSpec | None = None,
) -> Iterator[tuple[Conversation, str]]:
    """Convert a kept trajectory to conversations, in AgentInstruct's form.

    There is one, but where the model is shown nothing of former turns (Mind2Web) there is
    one for each turn of its own: what it learns from is then what it is played with.

    Args:
        number: The task's place in the collection, from 0; the row's stable identifier
            is made of it.
        trajectory: Its last turns are left out where they are not the assistant's.
        model: What acted.
        environment: What was played; by default the held-in one that the trajectory names.

    Yields:
        A conversation with an identifier such as "db_17", and the task's identifier.

    Raises:
        DataError: The trajectory has no assistant turn.
    """
    spec = environment or load_environment(trajectory.environment)
    dialogue, task = spec.dialogue, spec.task
    if dialogue.single_turn:
        parts = list(_single_turns(trajectory.messages))
        numbers = [number * dialogue.round_limit + index for index in range(len(parts))]
    else:
        parts, numbers = [finished(trajectory.messages)], [number]
    for place, messages in zip(numbers, parts, strict=True):
        conversation = Conversation.create(
            messages,
            id=f"{task}_{place}",
            source=SOURCE,
            task=task,
            model=model,
            tools=trajectory.tools,
        )
        yield conversation, trajectory.task_id


def finished(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return a dialogue up to its last assistant turn."""
    last = len(messages)
    while last and messages[last - 1].role != "assistant":
        last -= 1
    return messages[:last]


def _single_turns(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    trained = [index for index, message in enumerate(messages) if message.trained]
    if trained:
        opening = messages[: trained[0] - 1]
        for index in trained:
            yield (*opening, *messages[index - 1 : index + 1])


class OutputWriter:
    """Writes kept trajectories as a stream; memory does not grow with their number.

    All files are written beside their place and put there by `finish`, each whole and the
    parquet file last: until then a reader finds what was there before. Left without
    `finish`, nothing changes. A process that was killed leaves only hidden `.part` files,
    which the next one replaces.

        with OutputWriter(folder, "database") as output:
            for number, trajectory in enumerate(trajectories):
                if sieve.keeps(trajectory):
                    output.add(number, trajectory)
            output.finish(card)

    Args:
        folder: Folder of the collection; made if need be. One writer of an environment at
            a time.
        environment: The environment, or the name of a held-in one.
        model: What acts; a column of `messages`, and left out of AgentInstruct's shape.

    Attributes:
        rows: Rows written so far.
        trajectories: Trajectories added so far.

    Raises:
        ConfigError: The environment is unknown.
        StorageError: The folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        environment: str | EnvironmentSpec,
        model: str = "",
    ) -> None:
        spec = load_environment(environment) if isinstance(environment, str) else environment
        self._environment, task = spec, spec.task
        self._as_messages = spec.as_messages
        self.folder, self.task, self.model = Path(folder), task, model
        self.rows = self.trajectories = 0
        # In the order in which they are renamed: the training file last.
        kinds = ("messages", "origins") if self._as_messages else ("jsonl", "messages", "origins")
        self._texts = {kind: self.folder / kind / f"{task}.jsonl" for kind in kinds}
        self._table = table_path(self.folder, task)
        self._open: dict[str, TextIO] = {}
        self._writer: pq.ParquetWriter | None = None
        self._batch: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Open the files."""
        import pyarrow.parquet as pq

        try:
            for path in (*self._texts.values(), self._table):
                path.parent.mkdir(parents=True, exist_ok=True)
            for kind, path in self._texts.items():
                self._open[kind] = _part(path).open("w", encoding="utf-8", newline="\n")
            self._schema = messages_schema() if self._as_messages else agentinstruct_schema()
            self._writer = pq.ParquetWriter(_part(self._table), self._schema)
        except OSError as error:
            self._discard()
            raise StorageError(f"{self.folder}: cannot be written: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Remove files that were not finished."""
        self._discard()

    def add(self, number: int, trajectory: Trajectory) -> None:
        """Write a kept trajectory.

        Args:
            number: The task's place in the collection, from 0; give each once.
            trajectory: Of this environment.

        Raises:
            DataError: The trajectory has no assistant turn.
            StorageError: The disk is full, or the folder has gone.
        """
        try:
            for conversation, task_id in conversations_of(
                number, trajectory, self.model, self._environment
            ):
                row = messages_row(conversation, model=bool(self.model))
                self._line("messages", row)
                if not self._as_messages:
                    row = agentinstruct_row(conversation)
                    self._line("jsonl", row)
                self._line("origins", _origin(conversation, task_id, trajectory))
                self._batch.append(row)
                self.rows += 1
            if len(self._batch) >= _BATCH_ROWS:
                self._flush()
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error}") from error
        self.trajectories += 1

    def finish(self, card: DatasetCard) -> None:
        """Rename all files to their final names.

        Args:
            card: Contents of the README.

        Raises:
            StorageError: The disk is full, or the folder has gone.
        """
        try:
            self._flush()
            if self._writer is not None:
                self._writer.close()
            for kind, file in self._open.items():
                file.close()
                _settle(_part(self._texts[kind]))
            _settle(_part(self._table))
            for path in (*self._texts.values(), self._table):
                _part(path).replace(path)
            self._open, self._writer = {}, None
            write_card(*(self.folder, self.task, card, self.rows), as_messages=self._as_messages)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error}") from error

    def _line(self, kind: str, row: Mapping[str, Any]) -> None:
        self._open[kind].write(json.dumps(row, ensure_ascii=False) + "\n")

    def _flush(self) -> None:
        import pyarrow as pa

        if self._batch and self._writer is not None:
            self._writer.write_table(pa.Table.from_pylist(self._batch, schema=self._schema))
            self._batch = []

    def _discard(self) -> None:
        for file in self._open.values():
            file.close()
        if self._writer is not None:
            self._writer.close()
        self._open, self._writer = {}, None
        for path in (*self._texts.values(), self._table):
            _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    # Hidden, so that no reader of the folder treats it as data.
    return path.with_name(f".{path.name}.part")


def _settle(path: Path) -> None:
    """Sync a file to disk: otherwise a rename could be durable before its content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _origin(conversation: Conversation, task_id: str, trajectory: Trajectory) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "task_id": task_id,
        "reward": trajectory.reward,
        "exit_reason": trajectory.exit_reason,
        "num_rounds": trajectory.num_rounds,
        "valid_rounds": trajectory.valid_rounds,
        "prompt": trajectory.prompt,
    }
