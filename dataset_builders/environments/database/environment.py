"""AgentBench's database task (DB) on generated tables, AgentBench's own, or the user's.

Differences from AgentBench.old, all for safety or because of SQLite: one statement at a time, where
its MySQL also ran several; every statement limited in time and size; SQLite as the default engine;
columns of numbers have a numeric affinity in generated tables (see `tables.Column`); on MariaDB the
database name differs from the table name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from dataset_builders.environments.base import (
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.database.agentbench import DATA_NAMES, AgentBenchSource
from dataset_builders.environments.database.answers import answer_matches
from dataset_builders.environments.database.engine import Sqlite
from dataset_builders.environments.database.generated import GeneratedSource
from dataset_builders.environments.database.mariadb import MariaDB
from dataset_builders.environments.database.mariadb_client import load_client
from dataset_builders.environments.database.mariadb_server import missing_programs
from dataset_builders.environments.database.pairs import FILE, PairSource
from dataset_builders.environments.database.problems import Problem, ProblemSource
from dataset_builders.environments.database.scoring import (
    GROUP_CONCAT_CHARS,
    agentbench_match,
)
from dataset_builders.environments.database.tables import Backend, Database, StatementError
from dataset_builders.environments.database.tasks import CHANGE_ANSWER
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.errors import AgentTuningError, ConfigError, DataError, SourceNotFoundError

OPERATION = "Operation"
ANSWER = "Answer"
GENERATED, AGENTBENCH, PAIRS = "generated", "agentbench", "pairs"
_BACKENDS = ("sqlite", "mariadb")
_MAX_LABEL = 100


@dataclass(frozen=True, slots=True)
class _Episode:
    problem: Problem
    database: Database
    label: tuple[str, ...]
    result: tuple[tuple[object, ...], ...]
    state: str | None


class DatabaseEnvironment(TextEnvironment):
    """Questions about, and changes to, small tables.

    An action is `Operation` or `Answer`, a line break and the statement or the answer.
    The score is 1 if the answer states the rows of the reference statement's result
    (`answers.answer_matches`) or, for a change, if the tables' content equals the content
    after the reference statement; else 0. AgentBench's tasks are scored exactly by its rules:
    answers by `scoring.agentbench_match`, and a change by its recorded hash however the episode
    ends. In addition to the base class, `info` has `kind` (such as "count" or "INSERT"),
    `backend` ("sqlite" or "mariadb") and, where AgentBench gives an unusable table, `malformed`.
    Exit reason: "answered".

    Args:
        data: Folder of AgentBench's dbbench files, or file or folder of pairs.
        tasks: "generated", "agentbench" or "pairs"; by default what `data` holds, and
            "generated" without it.
        backend: "sqlite", or "mariadb".
        url: A MariaDB or MySQL server, such as `mysql://root@127.0.0.1:3306`; without it a
            private one is started. The password may come from the environment variable
            `AGENTTUNING_MARIADB_PASSWORD` instead.
        render_mode: Gymnasium's; nothing is ever drawn.
        dialogue: "text", or "tools" for tool calls in the format of AgentBench's function-calling
            version; `EnvironmentSpec` chooses the dialogue by it.

    Raises:
        ConfigError: A setting is unknown, or two do not go together.
    """

    name: ClassVar[str] = "database"
    data_names: ClassVar[tuple[str, ...]] = DATA_NAMES
    idle_action: ClassVar[str] = f"{OPERATION}\nSELECT 1"

    def __init__(
        self,
        data: str | Path | None = None,
        tasks: str | None = None,
        backend: str = "sqlite",
        url: str | None = None,
        render_mode: str | None = None,
        dialogue: Literal["text", "tools"] = "text",
    ) -> None:
        del dialogue
        super().__init__(data, render_mode)
        self._episode: _Episode | None = None
        self._source = _source(tasks, data)
        self._backend = _backend(backend, url)
        if isinstance(self._source, GeneratedSource) and backend == "sqlite":
            # Small tables and few steps: a thread would cost more than the statement.
            self.isolation = "inline"

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend.name

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "database-train-0000" or "database-test-agentbench-000"."""
        return self._source.task_ids(split)

    def problem(self, task_id: str) -> Problem:
        """Return a task's question, tables, reference statement and label.

        Raises:
            ConfigError: There is no such task.
            DataError: Its record is invalid.
        """
        return self._source.problem(task_id)

    def malformed(self, split: str) -> dict[str, str]:
        """Return tasks with unusable tables, and why; see `AgentBenchSource`."""
        return self._source.malformed(split) if isinstance(self._source, AgentBenchSource) else {}

    def state_digest(self) -> str | None:
        """Return a hash of the content of the task's tables; see `TextEnvironment.state_digest`."""
        episode = self._current()
        return _state(episode.problem, episode.database) or "a table is gone"

    def oracle(self) -> Oracle:
        """Yield the reference statement, if there is one, then the label."""
        episode = self._current()
        problem = episode.problem
        if problem.sql:
            yield OracleStep(problem.thought, f"{OPERATION}\n{problem.sql}")
        closing = (
            "The table is changed as asked." if problem.changes else "The result has the answer."
        )
        yield OracleStep(
            closing, f"{ANSWER}\n{json.dumps(list(episode.label), ensure_ascii=False)}"
        )

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Report the available backends; no setup is needed."""
        say("database: SQLite needs nothing")
        try:
            load_client()
            hint = missing_programs()
        except AgentTuningError as error:
            hint = str(error)
        say(f"database: backend mariadb: {hint or 'ready; a private server starts when needed'}")
        if data is not None:
            environment = cls(data)
            for split in ("train", "dev", "test"):
                _tell(environment, split, say)

    def _begin(self, task_id: str) -> ResetResult:
        problem = self.problem(task_id)
        result, state = problem.result, problem.state
        if not problem.agentbench and (state if problem.changes else result) is None:
            result, state = self._solve(problem, task_id)
        result = result or ()
        label = problem.label
        if label is None:
            texts = tuple(str(value) for row in result for value in row)
            label = (CHANGE_ANSWER,) if problem.changes else texts
        database = self._backend.open(problem.tables, problem.limits, problem.file)
        self._episode = _Episode(problem, database, label, result, state)
        return ResetResult(problem.observation, problem.question, self._facts(problem))

    def _solve(
        self, problem: Problem, task_id: str
    ) -> tuple[tuple[tuple[object, ...], ...], str | None]:
        """Run the reference statement on its own copy of the tables."""
        database = self._backend.open(problem.tables, problem.limits, problem.file)
        try:
            rows = database.query(problem.sql, _MAX_LABEL + 1)
            state = _state(problem, database) if problem.changes else None
        except StatementError as error:
            raise DataError(f"{task_id}: reference statement: {error}") from error
        finally:
            database.close()
        if len(rows) > _MAX_LABEL:
            raise DataError(f"{task_id}: reference statement: found over {_MAX_LABEL} rows")
        return tuple(rows), state

    def _act(self, action: str) -> StepResult:
        episode = self._current()
        info = self._facts(episode.problem)
        kind, _, content = action.partition("\n")
        if kind == OPERATION:
            return StepResult(episode.database.observe(content), info=info)
        if kind == ANSWER:
            return StepResult(exit_reason="answered", score=self._score(content), info=info)
        return StepResult("The action is neither Operation nor Answer.", valid=False, info=info)

    def failed(self, exit_reason: str) -> dict[str, Any]:
        """Abort the episode; AgentBench still compares the state of a change."""
        problem = self._current().problem
        score = self._score("") if problem.agentbench and problem.changes else 0.0
        self.close()
        outcome = StepResult(exit_reason=exit_reason, score=score, info=self._facts(problem))
        return self._info(outcome)

    def _score(self, answer: str) -> float:
        episode = self._current()
        problem = episode.problem
        if problem.changes:
            return float(_state(problem, episode.database) == episode.state is not None)
        if problem.agentbench:
            return float(agentbench_match(answer, episode.label))
        return float(answer_matches(answer, episode.result))

    def _facts(self, problem: Problem) -> dict[str, Any]:
        facts = {"kind": problem.kind, "backend": self.backend}
        return facts | ({"malformed": problem.malformed} if problem.malformed else {})

    def _end(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.database.close()
        self._backend.close()

    def _current(self) -> _Episode:
        return require_episode(self._episode)


def _state(problem: Problem, database: Database) -> str | None:
    """One hash for all tables; None where one of them is gone."""
    hashes = [
        database.state_hash(table, GROUP_CONCAT_CHARS)
        if problem.agentbench
        else database.exact_state(table)
        for table in problem.tables
    ]
    return None if None in hashes or not hashes else "_".join(map(str, hashes))


def _source(tasks: str | None, data: str | Path | None) -> ProblemSource:
    if tasks is None:
        tasks = _implied(data)
    if tasks == AGENTBENCH:
        return AgentBenchSource(data)
    if tasks == PAIRS:
        return PairSource(data)
    if tasks != GENERATED:
        known = ", ".join((GENERATED, AGENTBENCH, PAIRS))
        raise ConfigError(f"database: tasks: found {tasks!r}, expected one of {known}")
    if data is not None:
        raise ConfigError(f"database: tasks: {GENERATED}: needs no data, found data {str(data)!r}")
    return GeneratedSource()


def _implied(data: str | Path | None) -> str:
    if data is None:
        return GENERATED
    if not Path(data).exists():
        raise SourceNotFoundError(
            f"database: {data}: found nothing there, expected a folder with standard.jsonl and "
            f"dev.jsonl of AgentBench's dbbench, or {FILE} with questions and SQL"
        )
    return PAIRS if Path(data).is_file() or (Path(data) / FILE).exists() else AGENTBENCH


def _backend(backend: str, url: str | None) -> Backend:
    if backend not in _BACKENDS:
        known = " or ".join(map(repr, _BACKENDS))
        raise ConfigError(f"database: backend: found {backend!r}, expected {known}")
    if backend == "mariadb":
        return MariaDB(url)
    if url is not None:
        raise ConfigError("database: url: is for the backend 'mariadb', found backend 'sqlite'")
    return Sqlite()


def _tell(environment: DatabaseEnvironment, split: str, say: Callable[[str], None]) -> None:
    try:
        number = len(environment.task_ids(split))
    except ConfigError:  # This kind of data has no such split.
        return
    except SourceNotFoundError as error:
        say(f"database: {split}: {error}")
        return
    malformed = environment.malformed(split)
    say(f"database: {split}: {number} tasks, {len(malformed)} of them with a malformed table")
    for task_id, reason in malformed.items():
        say(f"database: {task_id}: {reason}")
