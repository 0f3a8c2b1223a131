"""Run self-replay into a folder that is a source like any other.

The folder has `self_replay/replies.sqlite` with every reply, written during the run, and, once all
prompts are answered, `data/train.jsonl`, `README.md`, `self_replay/report.json` and
`made/provenance.json`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.conversation import Conversation
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import AgentTuningError, DataError
from dataset_builders.instructions.budget import BudgetSpentError
from dataset_builders.instructions.run_io import REPLIES, Writer, account, asking
from dataset_builders.rollouts.model_policies import AnswerTurns
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.rollouts.threads import run_in_thread
from dataset_builders.self_replay.card import write_readme
from dataset_builders.self_replay.dialogues import (
    Answerer,
    ReplayReport,
    asked_turns,
    unanswerable,
)
from dataset_builders.self_replay.local_batches import RecordedBatches
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import ResolvedSource, load_source
from dataset_builders.sources.made import SelfReplay, write_provenance
from dataset_builders.sources.spec import SourceSpec

STATE = "self_replay"
"""Subfolder with the replies and the report."""

DATA = "data/train.jsonl"

KIND = "self_replay"

_AT_ONCE = 4096
"""Maximum conversations of a local model in progress: enough to batch by length."""

Watch = Callable[[int, int], None]
"""Called with the number of answers so far and of user turns in all."""


@dataclass(frozen=True, slots=True)
class LocalAnswers:
    """A model in this process.

    Attributes:
        answer: Answers dialogues with the settings' sampling.
        digest: Identifies the weights, tokenizer and chat template.
    """

    answer: AnswerTurns
    digest: str


def prompts_of(settings: SelfReplay) -> ResolvedSource:
    """Return the source of the prompts.

    Raises:
        DataError, SourceNotFoundError: See `resolve_source`.
    """
    return resolve_source(SourceSpec(settings.prompts, limit=settings.limit))


_VERSION = 1
"""Increased when the same replies give other conversations, as by another rule of a filter."""


def inputs_of(settings: SelfReplay, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the answers depend on, JSON-ready.

    Args:
        settings: Settings of the replay.
        model: What identifies the model, JSON-ready.
    """
    names = ("history", "temperature", "top_p", "seed", "max_new_tokens", "limit")
    return {
        "kind": KIND,
        "version": _VERSION,
        "prompts": prompts_of(settings).fingerprint,
        "model": dict(model),
        "filters": sorted(settings.filters),
        **{name: getattr(settings, name) for name in names},
    }


def sampling_of(settings: SelfReplay) -> Sampling:
    """Return the sampling settings of requests; greedy ones have no seed."""
    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p if settings.top_p < 1 else None,
        seed=settings.seed if settings.temperature > 0 else None,
        max_tokens=settings.max_new_tokens,
    )


def count_prompts(settings: SelfReplay) -> tuple[int, int]:
    """Return the number of conversations that can be answered, and of their user turns."""
    talks = [c for c in load_source(prompts_of(settings)).conversations if not unanswerable(c)]
    return len(talks), sum(len(asked_turns(talk.messages)) for talk in talks)


def self_replay(
    settings: SelfReplay,
    out: Path,
    model: Writer | LocalAnswers,
    identity: Mapping[str, Any],
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Answer the prompts of a source, or resume it.

    Args:
        settings: Settings of the replay.
        out: Folder to write; one that was begun is resumed, and no answer is paid for twice.
        model: The model.
        identity: What identifies the model in the provenance, JSON-ready.
        watch: Shows progress.

    Returns:
        The report, as stored in `self_replay/report.json`. If a limit has `stopped` the run, no
        data are written yet.

    Raises:
        ConfigError: The folder is in use, or was started with another model or sampling.
        DataError: The prompts cannot be read, or no answer is kept.
        EndpointError: The endpoint does not work; what was answered stays.
    """
    return run_in_thread(lambda: _run(settings, out, model, identity, watch))


async def _run(
    settings: SelfReplay,
    out: Path,
    model: Writer | LocalAnswers,
    identity: Mapping[str, Any],
    watch: Watch | None,
) -> dict[str, Any]:
    source = prompts_of(settings)
    loaded = load_source(source)
    talks = loaded.conversations
    report = ReplayReport(unread=Counter(loaded.report.dropped))
    report.unread["damaged"] += len(loaded.report.lost)
    report.unread = +report.unread
    reasons = [unanswerable(talk) for talk in talks]
    report.conversations.update(reason for reason in reasons if reason)
    chosen = [(n, talk) for n, talk in enumerate(talks) if not reasons[n]]
    async with _opened(settings, out, model, identity) as (policy, store, at_once):
        total = sum(len(asked_turns(talk.messages)) for _, talk in chosen)
        watched = _Watched(policy, total, watch)
        answerer = Answerer(watched, settings, report)
        kept = await _answered(answerer, chosen, at_once, report)
        report.rows = len(kept)
        found = account(out / STATE, report, store)
    if not report.stopped:
        _write(settings, out, kept, found, identity, source)
    return found


@asynccontextmanager
async def _opened(
    settings: SelfReplay, out: Path, model: Writer | LocalAnswers, identity: Mapping[str, Any]
) -> AsyncIterator[tuple[Policy, SqliteRolloutLog, int]]:
    """Open the store and the model; and return how many conversations may be in progress."""
    if isinstance(model, Writer):
        async with asking(model, out / STATE, {"identity": dict(identity)}) as (client, store):
            yield client, store, 2 * model.concurrency
        return
    sampling = sampling_of(settings)
    store = SqliteRolloutLog(out / STATE / REPLIES)
    try:
        store.agree({"identity": dict(identity), **asdict(sampling)})
        batches = RecordedBatches(model.answer, store, sampling, model.digest, settings.batch_size)
        yield batches, store, _AT_ONCE
    finally:
        store.close()


async def _answered(
    answerer: Answerer,
    chosen: Iterable[tuple[int, Conversation]],
    at_once: int,
    report: ReplayReport,
) -> list[Conversation]:
    room = asyncio.Semaphore(at_once)
    failures: list[AgentTuningError] = []

    async def one(number: int, talk: Conversation) -> list[Conversation]:
        async with room:
            if failures or report.stopped:
                return []
            try:
                return await answerer.answer(f"{number}:{talk.id}", talk)
            except BudgetSpentError as error:
                report.stopped = error.reason
            except AgentTuningError as error:
                failures.append(error)
        return []

    found = await asyncio.gather(*(one(number, talk) for number, talk in chosen))
    if failures:
        raise failures[0]
    return [talk for part in found for talk in part]


class _Watched(Policy):
    """Reports each answer to a function."""

    def __init__(self, model: Policy, total: int, watch: Watch | None) -> None:
        self._model, self._total, self._watch = model, total, watch
        self._done = 0

    async def next_turn(self, request: TurnRequest) -> Any:
        reply = await self._model.next_turn(request)
        self._done += 1
        if self._watch is not None:
            self._watch(self._done, self._total)
        return reply


def _write(
    settings: SelfReplay,
    out: Path,
    kept: list[Conversation],
    report: Mapping[str, Any],
    identity: Mapping[str, Any],
    source: ResolvedSource,
) -> None:
    if not kept:
        reasons = ", ".join(f"{name} {n}" for name, n in report["answers"].items()) or "none asked"
        raise DataError(f"{settings.prompts}: self_replay: no answer was kept ({reasons})")
    write_jsonl(out / DATA, kept)
    inputs = inputs_of(settings, identity)
    write_readme(out, settings, report, inputs)
    data = hashlib.sha256((out / DATA).read_bytes()).hexdigest()
    write_provenance(out, {**inputs, "data_sha256": data})
