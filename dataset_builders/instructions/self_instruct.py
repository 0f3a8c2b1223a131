"""Self-Instruct: a model writes new tasks (AgentTuning, section 2.1.1; Wang et al. 2023).

It is shown some tasks and writes new ones: text, solution and check. None is trusted: each is
played in the environment, and only sound tasks are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dataset_builders.instructions.budget import together
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.journal import Journal
from dataset_builders.instructions.proposal_filter import (
    PURPOSE,
    Maker,
    SelfInstructReport,
    SelfInstructSettings,
    digest,
)
from dataset_builders.instructions.run_io import TASKS, Writer, account, asking
from dataset_builders.instructions.task_kinds import Record, TaskKind
from dataset_builders.rollouts.policy import Policy

_DECISIVE = ("per_request", "examples", "concurrency", "max_tokens", "seed")
"""Settings that determine the requests; more tasks or requests only continue the run."""


async def self_instruct(
    model: Policy,
    kind: TaskKind,
    seeds: Sequence[Record],
    guard: EvaluationGuard,
    settings: SelfInstructSettings,
    out: Path,
    on_progress: Callable[[SelfInstructReport], None] | None = None,
) -> SelfInstructReport:
    """Generate tasks until there are enough.

    The run is a function of its settings, its seeds and the model's replies. Replies are stored
    before they are used, and so are the results of playing; a restarted run resumes where it
    stopped and requests nothing twice.

    Args:
        model: Writes the tasks.
        kind: The environment's kind of tasks.
        seeds: Example tasks; those that cannot be formatted are skipped.
        guard: Evaluation tasks to exclude.
        settings: Settings of the run.
        out: Folder for the tasks, as the environment reads them, and the journal.
        on_progress: Called after every round.

    Raises:
        ConfigError: No seed can be used as an example.
        StorageError: The journal cannot be written.
    """
    journal = Journal(out / "journal.jsonl")
    try:
        maker = Maker(kind, seeds, guard, settings, journal)
        while not maker.over():
            for outcome in await together(maker.requests(model)):
                # Playing takes seconds, which must not block a client's timeouts.
                await asyncio.to_thread(maker.take, outcome)
            kind.write(out / TASKS, maker.kept)
            if on_progress is not None:
                on_progress(maker.report)
    finally:
        journal.close()
    return maker.report


async def run_self_instruct(
    writer: Writer,
    kind: TaskKind,
    seeds: Sequence[Record],
    guard: EvaluationGuard,
    settings: SelfInstructSettings,
    out: Path,
    on_progress: Callable[[SelfInstructReport], None] | None = None,
) -> dict[str, Any]:
    """Run `self_instruct` with an endpoint, into a folder.

    Returns:
        The report, as written to `report.json`.

    Raises:
        ConfigError: The folder belongs to a run with other settings.
        EndpointError: The endpoint does not work.
        MissingExtraError: openai is not installed.
    """
    decisive = {"instructions": PURPOSE, "environment": kind.name}
    decisive |= {name: getattr(settings, name) for name in _DECISIVE}
    decisive["seeds"] = digest(list(seeds))
    async with asking(writer, out, decisive) as (client, store):
        report = await self_instruct(client, kind, seeds, guard, settings, out, on_progress)
        if client.undecided is not None:
            raise client.undecided
        return account(out, report, store)
