"""Run Task Derivation: read a file of pairs, write tasks and trajectories."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_builders.collection.card import DatasetCard
from dataset_builders.collection.output import OutputWriter
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.errors import UnprovenError
from dataset_builders.environments import load_environment
from dataset_builders.environments.database.pairs import FILE
from dataset_builders.instructions.budget import BudgetSpentError
from dataset_builders.instructions.derive import (
    KEPT,
    DerivationReport,
    Sifter,
    construct,
)
from dataset_builders.instructions.files import read_lines, write_lines
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.run_io import TASKS, Writer, account, asking
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.policy import Policy

TRAJECTORIES = "trajectories"
TEMPLATE = "template"
"""Model name recorded when thoughts are the oracle's fixed sentences."""

NOT_REACHED = "not_reached"
_WINDOW = 16
"""Records whose thoughts are requested at the same time."""


@dataclass(frozen=True, slots=True)
class DeriveSettings:
    """Settings of Task Derivation.

    Attributes:
        pairs: File of questions with reference SQL, or a folder with `pairs.jsonl`.
        out: The run's folder.
        num_tasks: Tasks to keep, the first sound ones; None for all.
        writer: The model that writes thoughts; None for none.
        templates: Without a writer: build trajectories with fixed sentences as thoughts.
        options: Settings of the database environment, such as its backend.
    """

    pairs: str
    out: Path
    num_tasks: int | None = None
    writer: Writer | None = None
    templates: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


Item = tuple[dict[str, Any], Trajectory]
_Work = tuple[Item, asyncio.Task[Trajectory | None]]


async def derive(
    settings: DeriveSettings,
    guard: EvaluationGuard,
    on_progress: Callable[[DerivationReport], None] | None = None,
) -> dict[str, Any]:
    """Derive tasks and, with a writer or templates, trajectories.

    `out/tasks` holds the sound records, for a model to solve; `out/trajectories`
    the constructed trajectories that earned their reward. When resumed after a crash, the run
    requests no reply twice.

    Returns:
        The report, as written to `report.json`: every record of the file is counted once.

    Raises:
        SourceNotFoundError: There is no such file.
        DataError: A line of it is not a valid record.
        ConfigError: The folder belongs to a run with other settings.
        EndpointError: The endpoint does not work.
    """
    run = _Run(settings, guard, on_progress or (lambda report: None))
    if settings.writer is None:
        run.open()
        return await run.finish(None, None)
    run.open()
    async with asking(settings.writer, settings.out, {"pairs": str(run.file)}) as (client, store):
        return await run.finish(client, store)


class _Run:
    def __init__(
        self,
        settings: DeriveSettings,
        guard: EvaluationGuard,
        on_progress: Callable[[DerivationReport], None],
    ) -> None:
        self._settings, self._guard, self._on_progress = settings, guard, on_progress
        self.report = DerivationReport()
        self._kept: list[dict[str, Any]] = []

    def open(self) -> None:
        """Read the file, so that errors in it show before any request is sent."""
        given = Path(self._settings.pairs)
        self.file = (given / FILE if given.is_dir() else given).resolve()
        self._records = [record for _, record in read_lines(self.file, "question")]
        self._environment = load_environment(
            "database", tasks="pairs", data=str(self.file), **self._settings.options
        )
        self._task_ids = self._environment.task_ids("train")

    async def finish(self, client: Policy | None, store: SqliteRolloutLog | None) -> dict[str, Any]:
        """Play, request and write."""
        writer = self._settings.writer
        model = writer.endpoint.model if writer else TEMPLATE
        if client is None and not self._settings.templates:
            async for record, _ in self._sound():
                self._keep(record)
        else:
            with OutputWriter(
                self._settings.out / TRAJECTORIES, self._environment, model
            ) as output:
                prompt = ""
                async with aclosing(self._built(client)) as items:
                    async for record, trajectory in items:
                        prompt = trajectory.prompt
                        output.add(len(self._kept), trajectory)
                        self._keep(record)
                output.finish(self._card(model, prompt, store))
        if rest := len(self._records) - self.report.records.total():
            self.report.records[NOT_REACHED] = rest
        write_lines(self._settings.out / TASKS / FILE, map(self._at_home, self._kept))
        return account(self._settings.out, self.report, store)

    def _keep(self, record: dict[str, Any]) -> None:
        self._kept.append(record)
        self.report.records[KEPT] += 1
        self._on_progress(self.report)

    def _enough(self) -> bool:
        wanted = self._settings.num_tasks
        return wanted is not None and len(self._kept) >= wanted

    async def _sound(self) -> AsyncIterator[Item]:
        sifter = Sifter(self._environment, self._guard, self.report)
        for record, task_id in zip(self._records, self._task_ids, strict=True):
            if self._enough():
                self.report.stopped = "enough"
                return
            solution = await asyncio.to_thread(sifter.solution, task_id, record["question"])
            if solution is not None:
                yield record, solution

    async def _built(self, client: Policy | None) -> AsyncGenerator[Item]:
        """Yield records with their trajectories in the file's order, deferred ones last."""
        if client is None:
            async for item in self._sound():
                yield item
            return
        sound, window, deferred = self._sound(), deque[_Work](), list[Item]()
        more = True
        try:
            while more or window:
                while more and not self.report.stopped and len(window) < self._room():
                    following = await anext(sound, None)
                    if following is None:
                        more = False
                    else:
                        window.append(self._begin(client, following))
                if not window:
                    break
                item, work = window.popleft()
                try:
                    built = await self._result(work)
                except UnprovenError:
                    deferred.append(item)  # Others may be answered.
                    continue
                if built is not None:
                    yield item[0], built
        finally:
            await asyncio.gather(*(work for _, work in window), return_exceptions=True)
        for item in deferred:
            if self.report.stopped:
                return
            built = await self._result(self._begin(client, item)[1])
            if built is not None:
                yield item[0], built

    def _room(self) -> int:
        wanted = self._settings.num_tasks
        return _WINDOW if wanted is None else max(1, min(_WINDOW, wanted - len(self._kept)))

    def _begin(self, client: Policy, item: Item) -> _Work:
        return item, asyncio.create_task(construct(client, self._environment, item[1], self.report))

    async def _result(self, work: asyncio.Task[Trajectory | None]) -> Trajectory | None:
        try:
            return await work
        except BudgetSpentError as error:
            self.report.stopped = error.reason
            return None

    def _card(self, model: str, prompt: str, store: SqliteRolloutLog | None) -> DatasetCard:
        spent = store.spent() if store else None
        records = self.report.records
        dropped = {name: count for name, count in records.items() if name != KEPT}
        return DatasetCard(
            environment="database",
            model=model,
            prompt=prompt,
            min_reward=1.0,
            counts={"played": records.total(), KEPT: records[KEPT], **dropped},
            prompt_tokens=spent.prompt_tokens if spent else None,
            completion_tokens=spent.completion_tokens if spent else None,
            cost=spent.cost if spent else None,
            settings={"instructions": "task derivation", "thoughts": model},
        )

    def _at_home(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with absolute paths."""
        if "tables" in record:
            return record
        if "database" in record:
            return record | {"database": str(self.file.parent / record["database"])}
        name = str(record.get("db_id"))
        path = self.file.parent / "databases" / name / f"{name}.sqlite"
        return {key: value for key, value in record.items() if key != "db_id"} | {
            "database": str(path)
        }
