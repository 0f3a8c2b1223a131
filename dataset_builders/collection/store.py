"""State of a collection: one SQLite database, written during the run.

`kill -9` loses nothing that was written: the journal is write-ahead, and what a killed
process had handed to the operating system stays. A power cut may lose the last moments
(`synchronous = NORMAL`), never the database.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dataset_builders.collection.serialization import (
    read_reply,
    read_trajectory,
    write_reply,
    write_trajectory,
)
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import Reply
from dataset_builders.errors import ConfigError, DataError, StorageError
from dataset_builders.rollouts.ledger import ACT, AttemptResult, Turn, Usage

VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
  task_id TEXT PRIMARY KEY, place INTEGER NOT NULL, final_attempt INTEGER);
CREATE TABLE IF NOT EXISTS responses (
  key TEXT PRIMARY KEY, reply TEXT NOT NULL, tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL, cost REAL);
CREATE TABLE IF NOT EXISTS turns (
  task_id TEXT NOT NULL, attempt INTEGER NOT NULL, purpose TEXT NOT NULL,
  round INTEGER NOT NULL, shown TEXT NOT NULL, key TEXT NOT NULL REFERENCES responses (key),
  PRIMARY KEY (task_id, attempt, purpose, round)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (
  task_id TEXT NOT NULL REFERENCES tasks (task_id), attempt INTEGER NOT NULL,
  exit_reason TEXT NOT NULL, reward REAL NOT NULL, trajectory TEXT NOT NULL,
  spent TEXT NOT NULL, PRIMARY KEY (task_id, attempt));
"""


class SqliteRolloutLog:
    """A collection's database; only one process can open it at a time.

    Every write is a separate transaction, committed before the method returns. The `async` methods
    make it a `Ledger`; they never wait.

    Args:
        path: The database; it and its folder are created if necessary.

    Raises:
        ConfigError: Another process has it open.
        DataError: The file is not such a database.
        StorageError: The folder cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The operating system releases the lock when the process dies for any reason.
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{path}: another process is collecting into it") from None
        except OSError as error:
            raise StorageError(f"{path.parent}: cannot be written: {error.strerror}") from error
        try:
            # Autocommit: transactions are opened where several statements belong together.
            self._db = sqlite3.connect(self.path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._lock.release()
            raise DataError(f"{self.path}: not a collection's database: {error}") from error

    def close(self) -> None:
        """Close the database and release the folder."""
        self._db.close()
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            # For example a full disk, which must end the run and not look like a bug.
            raise StorageError(f"{self.path}: cannot be written: {error}") from error

    def agree(
        self,
        settings: Mapping[str, Any],
        *,
        optional: Mapping[str, str] | None = None,
        accepted: Sequence[str] = (),
    ) -> None:
        """Store the settings that the data depend on, or compare them with the stored ones.

        If nothing was paid for or finished yet, for example after a misspelt model name, settings
        and tasks of that session are discarded.

        Args:
            settings: The settings by name.
            optional: Setting that accepts another value, by the name of what it accepts.
            accepted: Names whose stored value is replaced by another one.

        Raises:
            ConfigError: The folder was created with another value; names the setting.
        """
        wanted = {"version": VERSION, **settings}
        begun = "SELECT EXISTS (SELECT 1 FROM responses) OR EXISTS (SELECT 1 FROM attempts)"
        if not self._db.execute(begun).fetchone()[0]:
            with self._transaction():
                self._db.execute("DELETE FROM settings WHERE name != 'version'")
                self._db.execute("DELETE FROM tasks")
        stored = {
            name: json.loads(value)
            for name, value in self._db.execute("SELECT name, value FROM settings")
        }
        for name in stored or ():
            # Through JSON, like the stored value: a tuple becomes a list.
            given = json.loads(_dump(wanted.get(name)))
            if given != stored[name] and name not in accepted:
                switch = (optional or {}).get(name)
                raise ConfigError(
                    f"{self.path}: {name}: this collection was started with {stored[name]!r}, "
                    f"found {given!r}; give it as before, or another `out`"
                    + (f", or set `{switch}` to resume all the same" if switch else "")
                )
        rows = [(name, _dump(value)) for name, value in wanted.items()]
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", rows)
            for name in accepted:
                if name in wanted:
                    new = (_dump(wanted[name]), name)
                    self._db.execute("UPDATE settings SET value = ? WHERE name = ?", new)

    def add_tasks(self, task_ids: Sequence[str]) -> None:
        """Set the tasks, which must include those of earlier sessions.

        Raises:
            ConfigError: A task of an earlier session is missing.
        """
        known = {row[0] for row in self._db.execute("SELECT task_id FROM tasks")}
        if lacking := known.difference(task_ids):
            raise ConfigError(
                f"{self.path}: num_tasks or tasks: found {len(task_ids)} without "
                f"{min(lacking)}, expected all {len(known)} that were begun"
            )
        rows = [(task_id, place) for place, task_id in enumerate(task_ids)]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO tasks (task_id, place) VALUES (?, ?) "
                "ON CONFLICT (task_id) DO UPDATE SET place = excluded.place",
                rows,
            )

    def open_tasks(self) -> list[tuple[str, int]]:
        """Return unfinished tasks, each with its next attempt, in order."""
        rows = self._db.execute(
            "SELECT task_id, (SELECT COUNT(*) FROM attempts a WHERE a.task_id = t.task_id) "
            "FROM tasks t WHERE final_attempt IS NULL ORDER BY place"
        )
        return [(task_id, attempt) for task_id, attempt in rows]

    def endings(self) -> Iterator[tuple[int, AttemptResult]]:
        """Yield the results of finished tasks with their index, reading one at a time."""
        rows = self._db.execute(
            "SELECT t.place, a.trajectory, a.attempt, a.spent FROM tasks t JOIN attempts a "
            "ON a.task_id = t.task_id AND a.attempt = t.final_attempt ORDER BY t.place"
        )
        for place, trajectory, attempt, spent in rows:
            taken = Usage(**json.loads(spent))
            yield place, AttemptResult(read_trajectory(trajectory), attempt, True, taken)

    def numbers(self) -> tuple[int, int]:
        """Return the number of tasks, and of finished ones."""
        row = self._db.execute("SELECT COUNT(*), COUNT(final_attempt) FROM tasks").fetchone()
        return row[0], row[1]

    def attempts(self) -> int:
        """Return the number of finished attempts."""
        return int(self._db.execute("SELECT COUNT(*) FROM attempts").fetchone()[0])

    def rounds(self, task_id: str, purpose: str) -> frozenset[int]:
        """Return the rounds with requests of a purpose, in all attempts at a task."""
        rows = self._db.execute(
            "SELECT round FROM turns WHERE task_id = ? AND purpose = ?", (task_id, purpose)
        )
        return frozenset(number for (number,) in rows)

    def spent(self) -> Usage:
        """Return the usage of all replies, including earlier sessions."""
        row = self._db.execute(
            "SELECT TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(cost), COUNT(*), COUNT(cost), "
            "TOTAL(json_extract(reply, '$.cached_tokens')), "
            "TOTAL(json_extract(reply, '$.calls') > 0) FROM responses"
        ).fetchone()
        cost = row[2] if row[3] == row[4] else None
        return Usage(int(row[0]), int(row[1]), cost, row[3], int(row[5]), int(row[6]))

    def price(self, model: str, prices: PriceTable) -> int:
        """Compute the cost of replies that were paid for before their price was known.

        Args:
            model: The model.
            prices: Current prices.

        Returns:
            Number of replies whose cost stays unknown.
        """
        rows = self._db.execute("SELECT key, reply FROM responses WHERE cost IS NULL").fetchall()
        priced = []
        for key, text in rows:
            reply = read_reply(text)
            taken = reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens
            cost = prices.cost(model, *taken) if reply.counted else None
            if cost is not None:
                priced.append((_dump(json.loads(text) | {"cost": cost}), cost, key))
        if priced:
            with self._transaction():
                self._db.executemany("UPDATE responses SET reply=?, cost=? WHERE key=?", priced)
        return len(rows) - len(priced)

    async def turns(self, task_id: str, attempt: int, purpose: str = ACT) -> Sequence[Turn]:
        """Return the recorded turns of an attempt, in order."""
        rows = self._db.execute(
            "SELECT round, shown, key, reply FROM turns JOIN responses USING (key) "
            "WHERE task_id = ? AND attempt = ? AND purpose = ? ORDER BY round",
            (task_id, attempt, purpose),
        )
        return [
            Turn(task_id, attempt, number, purpose, json.loads(shown), key, read_reply(reply))
            for number, shown, key, reply in rows
        ]

    async def reply(self, key: str) -> Reply | None:
        """Return the stored reply to a request, or None."""
        row = self._db.execute("SELECT reply FROM responses WHERE key = ?", (key,)).fetchone()
        return read_reply(row[0]) if row else None

    async def record(self, turn: Turn) -> bool:
        """Store a paid reply and its turn; see `RolloutLog.record`."""
        reply = turn.reply
        response = turn.key, _dump(write_reply(reply)), *_tokens(reply)
        place = turn.task_id, turn.attempt, turn.purpose, turn.round, _dump(turn.shown), turn.key
        with self._transaction():
            done = self._db.execute(
                "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?)", (*response, reply.cost)
            )
            self._db.execute("INSERT OR IGNORE INTO turns VALUES (?, ?, ?, ?, ?, ?)", place)
        return bool(done.rowcount)

    async def end(self, ending: AttemptResult) -> bool:
        """Store the result of an attempt; see `RolloutLog.end`."""
        played = ending.trajectory
        row = (
            *(played.task_id, ending.attempt, played.exit_reason, played.reward),
            *(_dump(write_trajectory(played)), _dump(asdict(ending.spent))),
        )
        with self._transaction():
            over = self._db.execute(
                "SELECT 1 FROM tasks WHERE task_id = ? AND final_attempt IS NOT NULL",
                (played.task_id,),
            ).fetchone()
            if over:
                return False
            done = self._db.execute("INSERT OR IGNORE INTO attempts VALUES (?,?,?,?,?,?)", row)
            if done.rowcount and ending.final:
                self._db.execute(
                    "UPDATE tasks SET final_attempt = ? WHERE task_id = ?",
                    (ending.attempt, played.task_id),
                )
        return bool(done.rowcount)


def _dump(value: Any) -> str:
    # ASCII: a model may write lone surrogates, which databases reject as text.
    return json.dumps(value, separators=(",", ":"))


def _tokens(reply: Reply) -> tuple[int, int]:
    return reply.prompt_tokens, reply.completion_tokens
