"""Run a collection: select tasks, play them, write what is kept.

The store is authoritative. It is written during the run; the output and the report are generated
from it, completely, at the end of every session.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_builders.collection.card import DatasetCard
from dataset_builders.collection.engine import CollectionEngine, Finisher
from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.folder import check_folder, state_path
from dataset_builders.collection.output import OutputWriter
from dataset_builders.collection.progress import CollectionProgress, WatchedLedger
from dataset_builders.collection.ray_engine import RayEngine
from dataset_builders.collection.settings import CODE, CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import AgentTuningError, ConfigError
from dataset_builders.rollouts.playing import UNFINISHED
from dataset_builders.rollouts.threads import run_in_thread
from dataset_builders.storage import replace_text

INTERRUPTED = "interrupted"
RUN_TOKEN_LIMIT = "run_token_limit"
RUN_COST_LIMIT = "run_cost_limit"
RUN_TIME_LIMIT = "run_time_limit"


Watch = Callable[[CollectionProgress, CollectionEngine], None]
"""Called once at the start, with the objects that progress is read from."""


def run(
    config: CollectConfig, *, watch: Watch | None = None, finish: Finisher | None = None
) -> dict[str, Any]:
    """Start or resume a collection.

    SIGINT and SIGTERM drain the run: no further tasks start, running ones finish, and everything is
    written. A second signal stops at once; nothing that was paid for is lost.

    Args:
        config: Settings of the collection.
        watch: Called when play begins.
        finish: Applied to rewarded trajectories.

    Returns:
        The report, as stored in `collection/<environment>.json`.

    Raises:
        KeyboardInterrupt: It was stopped by a second signal.
        EndpointError: The endpoint refuses or is down; what has ended is written.
        ConfigError: A setting cannot work, or differs from what the folder was started with.
        AgentTuningError: Any other error that the user has to fix.
    """
    try:
        if config.play.local is not None:  # It answers in this thread.
            return run_in_thread(lambda: collect(config, watch=watch, finish=finish))
        return asyncio.run(collect(config, watch=watch, finish=finish))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def collect(
    config: CollectConfig, *, watch: Watch | None = None, finish: Finisher | None = None
) -> dict[str, Any]:
    """Same as `run`, on a running event loop."""
    config.check()
    check_folder(config.out, as_messages=config.play.environment.as_messages)
    sieve = _sieve(config)
    tasks = config.chosen()
    wording = config.play.environment.wording()
    store = SqliteRolloutLog(state_path(config.out, config.play.environment.name))
    try:
        fingerprint = config.fingerprint(wording.label)
        if finish is not None:  # It decides what is finished, such as with thoughts.
            fingerprint |= {"min_reward": config.play.min_reward}
        store.agree(
            fingerprint | {"finish": finish.name if finish else None},
            optional={CODE: "accept_changed_code"},
            accepted=(CODE,) if config.accept_changed_code else (),
        )
        store.add_tasks(tasks)
        _price(config, store)
        tally = _tally(config, store, sieve)
        engine, failure = await _play(config, store, tally, wording, watch, finish)
        report = _report(config, tally, engine, wording)
        if finish is not None:
            kept = tally.sieve.reason
            report["thoughts"] = finish.outcomes(store, lambda trajectory: not kept(trajectory))
        if tally.done:
            _export(config, store, report, wording)
        _write(store.path.with_suffix(".json"), report)
    finally:
        store.close()
    if failure is not None:
        raise failure
    return report


def _price(config: CollectConfig, store: SqliteRolloutLog) -> None:
    """Compute missing costs of earlier sessions, which limits depend on."""
    unknown = store.price(config.model, config.play.prices)
    if unknown and (config.limits.cost is not None or config.play.limits.cost is not None):
        raise ConfigError(
            f"{store.path}: a limit on cost: found {unknown} replies without a count of tokens, "
            "expected one for each"
        )


async def _play(
    config: CollectConfig,
    store: SqliteRolloutLog,
    tally: CollectionProgress,
    wording: Prompt,
    watch: Watch | None,
    finish: Finisher | None,
) -> tuple[CollectionEngine, AgentTuningError | None]:
    def spent() -> None:
        _look_at_limits(config, tally, engine)

    limits = (config.limits, config.play.limits)
    counts = any(each.tokens is not None or each.cost is not None for each in limits)
    play = replace(config.play, counts_tokens=counts, proven=store.spent().requests > 0)
    ledger = WatchedLedger(store, tally, spent)
    engine = (
        CollectionEngine(play, ledger, finish, wording)
        if config.cluster is None
        else RayEngine(play, ledger, finish, wording, config.cluster)
    )
    spent()
    if watch is not None:
        watch(tally, engine)
    loop = asyncio.get_running_loop()
    if config.limits.seconds is not None:
        loop.call_later(config.limits.seconds, engine.drain, RUN_TIME_LIMIT)
    with _signals(engine):
        try:
            await engine.run(store.open_tasks())
        except AgentTuningError as error:
            # Write what has finished, then raise the error.
            engine.stopped = engine.stopped or type(error).__name__
            return engine, error
    return engine, None


def _look_at_limits(
    config: CollectConfig, tally: CollectionProgress, engine: CollectionEngine
) -> None:
    limits, spent = config.limits, tally.spent
    if limits.tokens is not None and spent.tokens >= limits.tokens:
        engine.suspend(RUN_TOKEN_LIMIT)
    if limits.cost is not None and (spent.cost or 0.0) >= limits.cost:
        engine.suspend(RUN_COST_LIMIT)


@contextmanager
def _signals(engine: CollectionEngine) -> Iterator[None]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    signals = [signal.SIGINT, signal.SIGTERM]

    def stop() -> None:
        if engine.stopped == INTERRUPTED and task is not None:
            task.cancel()
        engine.stopped = INTERRUPTED
        engine.drain(INTERRUPTED)

    try:
        for each in signals:
            loop.add_signal_handler(each, stop)
    except (ValueError, RuntimeError):
        # Not the main thread: its owner decides what signals do.
        signals = []
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


def _sieve(config: CollectConfig) -> TrajectoryFilter:
    return TrajectoryFilter(config.play.min_reward, config.filters, UNFINISHED)


def _tally(
    config: CollectConfig, store: SqliteRolloutLog, sieve: TrajectoryFilter
) -> CollectionProgress:
    for _, ending in store.endings():
        sieve.keeps(ending.trajectory)
    return CollectionProgress(
        store.numbers()[0],
        sieve,
        store.spent(),
        attempts=store.attempts(),
        asks=config.play.endpoint is not None,
        priced=config.play.prices.knows(config.model),
    )


def _report(
    config: CollectConfig, tally: CollectionProgress, engine: CollectionEngine, wording: Prompt
) -> dict[str, Any]:
    spent = tally.spent
    calls = {"tool_calls": dict(tally.sieve.call_counts)} if tally.sieve.call_counts else {}
    return {
        "environment": config.play.environment.name,
        "model": config.model,
        "prompt": wording.label,
        "tasks": tally.total,
        "done": tally.done,
        "open": tally.total - tally.done,
        "attempts": tally.attempts,
        "kept": tally.kept,
        "dropped": tally.reasons,
        "cut_turns": tally.sieve.cut_turns,
        "prompt_tokens": spent.prompt_tokens,
        "cached_tokens": spent.cached_tokens,
        "completion_tokens": spent.completion_tokens,
        "requests": spent.requests,
        "replies_with_tool_calls": spent.with_calls,
        **calls,
        "cost": spent.cost,
        "cost_per_kept": tally.cost_per_kept,
        # A limit reached with the very last reply has stopped nothing.
        "stopped": engine.stopped if tally.done < tally.total else "",
        "session": {
            "seconds": round(tally.seconds, 3),
            "ended": tally.ended,
            "tokens": tally.session.tokens,
            "cost": tally.session.cost,
            "retries": dict(engine.retries),
            "cuts_of_concurrency": engine.limit.cuts,
        },
        "settings": config.fingerprint(wording.label)
        | {"min_reward": config.play.min_reward, "filters": list(tally.sieve.names)},
    }


def _export(
    config: CollectConfig, store: SqliteRolloutLog, report: dict[str, Any], wording: Prompt
) -> None:
    sieve, name = _sieve(config), config.play.environment.name
    asked = config.play.endpoint is not None  # Others count no tokens: 0 would be noise.
    with OutputWriter(config.out, config.play.environment, config.model) as output:
        for place, ending in store.endings():
            if sieve.keeps(ending.trajectory):
                output.add(place, ending.trajectory)
        card = DatasetCard(
            environment=name,
            model=config.model,
            prompt=wording.label,
            min_reward=config.play.min_reward,
            filters=sieve.names,
            counts=sieve.counts,
            cut_turns=None if config.play.plays_oracle else sieve.cut_turns,
            call_counts=sieve.call_counts,
            attempts=report["attempts"],
            prompt_tokens=report["prompt_tokens"] if asked else None,
            completion_tokens=report["completion_tokens"] if asked else None,
            cost=report["cost"] if asked else None,
            thoughts=report.get("thoughts", {}),
            settings=_facts(config),
        )
        output.finish(card)


def _facts(config: CollectConfig) -> dict[str, Any]:
    stand_in = config.play.environment.stand_in()
    facts: dict[str, Any] = {"Data": f"{stand_in}, for trying things out only"} if stand_in else {}
    if config.play.environment.is_own:
        facts["Reference"] = config.play.environment.reference
    if config.play.plays_oracle:
        return facts
    return facts | {
        "Temperature": config.play.sampling.temperature,
        "Most attempts at a task": config.play.attempts,
    }


def _write(path: Path, report: dict[str, Any]) -> None:
    replace_text(path, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
