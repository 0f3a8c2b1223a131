"""AgentBench's database task (DB) on generated tables, with SQLite as the engine.

The dialogue is AgentBench's: an instruction, "Ok.", the question with the table's
headers, then turns of a thought and either one SQL statement or the final answer. The
wording of the instruction is our own, and short, so that small models on small machines
can train on it. Differences from AgentBench: SQLite instead of MySQL; columns of
numbers have a numeric affinity (see `database_engine.Column`); a turn that cannot be
parsed scores 0 even if an earlier statement already changed the table as asked.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from dataset_builders.conversation import Message
from dataset_builders.environments.base import TextEnvironment
from dataset_builders.environments.database_engine import TableDatabase
from dataset_builders.environments.database_scoring import (
    answers_match,
    parse_answer,
    table_hash,
)
from dataset_builders.environments.database_tasks import SPLIT_SIZES, DatabaseTask, make_task
from dataset_builders.errors import ConfigError

INSTRUCTION = """\
Work on an SQLite table: write a short thought, then one action. To run one line of SQL:
Action: Operation
```sql
SELECT ...
```
To finish:
Action: Answer
Final Answer: ["value", ...]"""
"""The first user turn."""

ACKNOWLEDGEMENT = "Ok."

_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(\w+)", re.MULTILINE)
_SQL_BLOCK = re.compile(r"```sql\s(.*?)```", re.DOTALL | re.IGNORECASE)
_FINAL_ANSWER = re.compile(r"^[ \t]*Final Answer:(.*)", re.MULTILINE)
_TASK_ID = re.compile(r"database-([a-z]+)-(\d{4})")


@dataclass(frozen=True, slots=True)
class Operation:
    """An action that runs SQL.

    Attributes:
        sql: One line.
    """

    sql: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An action that ends the episode.

    Attributes:
        text: What follows `Final Answer:` on its line, verbatim.
    """

    text: str


def parse_action(turn: str) -> Operation | Answer | None:
    """Read an assistant turn by AgentBench's rule.

    The first `Action:` line decides, and of several sql blocks the first one counts. A
    turn that operates on nothing but states a final answer is an answer, even without
    the line `Action: Answer`.

    Args:
        turn: The whole turn, thought included.

    Returns:
        The action, or None where the turn has none.
    """
    action = _ACTION.search(turn)
    if action and action.group(1) == "Operation":
        block = _SQL_BLOCK.search(turn)
        return Operation(" ".join(block.group(1).split("\n")).strip()) if block else None
    answer = _FINAL_ANSWER.search(turn)
    return Answer(answer.group(1).strip()) if answer else None


class DatabaseEnvironment(TextEnvironment):
    """Questions about, and changes to, one small table.

    The score is AgentBench's: 1 if the answer equals the label or, for a change, if the
    table's content equals the content after the reference statement; else 0. `info`
    carries, beyond what the base class promises, `kind`, one of
    `database_tasks.KINDS`. Exit reasons: "answered", "bad_format", "round_limit".
    Without a task identifier `reset` draws a training task.
    """

    name: ClassVar[str] = "database"
    round_limit: ClassVar[int] = 15
    max_new_tokens: ClassVar[int] = 128

    # Gymnasium wants a list of characters; the environment itself takes any.
    observation_space = spaces.Text(max_length=4096, min_length=0, charset=string.printable)
    action_space = spaces.Text(max_length=4096, min_length=0, charset=string.printable)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._task_id = ""
        self._task: DatabaseTask | None = None
        self._database: TableDatabase | None = None
        self._rounds = 0

    @classmethod
    def task_ids(cls, split: str) -> tuple[str, ...]:
        """Identifiers such as "database-train-0000".

        Raises:
            ConfigError: The split is none of "train", "dev" and "test".
        """
        if split not in SPLIT_SIZES:
            raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLIT_SIZES)}")
        return tuple(f"{cls.name}-{split}-{index:04d}" for index in range(SPLIT_SIZES[split]))

    def opening(self) -> tuple[Message, ...]:
        """Instruction and acknowledgement; there is no demonstration, as in AgentBench."""
        return (Message("user", INSTRUCTION), Message("assistant", ACKNOWLEDGEMENT))

    def oracle(self) -> Sequence[str]:
        """Two turns: the reference statement, then the label."""
        task = self._current_task()
        closing = "The table is changed as asked." if task.changes else "The result has the answer."
        answer = json.dumps(list(task.label))
        return (
            f"{task.thought}\nAction: Operation\n```sql\n{task.sql}\n```",
            f"{closing}\nAction: Answer\nFinal Answer: {answer}",
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task.

        Args:
            seed: Seeds the draw of a task where `options` names none.
            options: `{"task_id": ...}`.

        Raises:
            ConfigError: There is no task of this identifier.
        """
        # TextEnvironment leaves reset to its children, so seeding is the grandparent's.
        gymnasium.Env.reset(self, seed=seed)
        task_id = (options or {}).get("task_id")
        if task_id is None:
            ids = self.task_ids("train")
            task_id = ids[int(self.np_random.integers(len(ids)))]
        task = _find_task(task_id)
        self.close()
        self._task_id, self._task, self._rounds = task_id, task, 0
        self._database = TableDatabase(task.table)
        headers = ", ".join(column.name for column in task.table.columns)
        observation = (
            f"{task.question}\nThe table is named {task.table.name} and has the headers {headers}."
        )
        return observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take an assistant turn.

        Returns:
            The rows or the error of a statement as observation, "" at the end; the
            reward, 0 or 1; whether the episode is over; whether the round limit cut it
            off; `info`.

        Raises:
            gymnasium.error.ResetNeeded: No episode is running.
        """
        task, database = self._current_task(), self._database
        if database is None:
            raise ResetNeeded("the episode is over; call reset")
        self._rounds += 1
        match parse_action(action):
            case None:
                return self._end("bad_format", score=0.0, valid_format=False)
            case Answer(text):
                return self._end("answered", score=_score(task, database, text))
            case Operation(sql):
                observation = database.observe(sql)
        if self._rounds >= self.round_limit:
            return self._end("round_limit", score=0.0, truncated=True)
        return observation, 0.0, False, False, self._info()

    def close(self) -> None:
        """Free the database; may be called more than once."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _current_task(self) -> DatabaseTask:
        if self._task is None:
            raise ResetNeeded("no task has been started; call reset")
        return self._task

    def _end(
        self, exit_reason: str, *, score: float, valid_format: bool = True, truncated: bool = False
    ) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.close()
        info = self._info(score=score, valid_format=valid_format)
        info["exit_reason"] = exit_reason
        return "", score, not truncated, truncated, info

    def _info(self, *, score: float = 0.0, valid_format: bool = True) -> dict[str, Any]:
        task = self._current_task()
        return {
            "task_id": self._task_id,
            "split": self._task_id.split("-")[1],
            "score": score,
            "success": score == 1.0,
            "instruction": task.question,
            "valid_format": valid_format,
            "kind": task.kind,
        }


def _find_task(task_id: object) -> DatabaseTask:
    found = _TASK_ID.fullmatch(task_id) if isinstance(task_id, str) else None
    if found is None or int(found.group(2)) >= SPLIT_SIZES.get(found.group(1), 0):
        raise ConfigError(f"task {task_id!r} is unknown; expected one such as database-train-0000")
    return make_task(found.group(1), int(found.group(2)))


def _score(task: DatabaseTask, database: TableDatabase, answer: str) -> float:
    if not task.changes:
        return float(answers_match(parse_answer(answer), task.label))
    reference = TableDatabase(task.table)
    try:
        reference.query(task.sql)
        expected, found = reference.state(), database.state()
    finally:
        reference.close()
    if expected is None or found is None:
        return 0.0
    return float(table_hash(found) == table_hash(expected))
