"""Collect with the current model: loaded in this process, or behind a server that is started."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.evaluation.local_player import loaded_player
from agenttuning_plugin.export.trained import find_trained
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.state import Facts
from agenttuning_plugin.rounds.training import merged_model
from dataset_builders.collection.collector import Watch, run
from dataset_builders.collection.engine import CollectionEngine, RolloutConfig
from dataset_builders.collection.filters import TrajectoryFilter, threshold_of
from dataset_builders.collection.folder import state_path
from dataset_builders.collection.progress import CollectionProgress
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import AgentTuningError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.playing import UNFINISHED

FOLDER = "collection"

_SECONDS_BETWEEN_LINES = 30.0


class CollectionStoppedError(AgentTuningError, RuntimeError):
    """A round's collection ended before all tasks were played."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What a round collects.

    Attributes:
        config: Settings of the rounds.
        player: Evaluator that states how the environment is played.
        number: The round, from 1.
        model: Folder of the model that plays.
        folder: Folder of the round.
    """

    config: RoundsConfig
    player: AgentTaskConfig
    number: int
    model: Path
    folder: Path

    @property
    def seed(self) -> int:
        """Seed of the tasks: another one in each round."""
        return self.config.seed + self.number

    @property
    def sampling(self) -> Sampling:
        """Sampling settings; attempt k of a task samples with their seed + k."""
        config = self.config
        return Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            seed=self.seed * 1_000,  # no two rounds share a seed, up to 1,000 attempts
            max_tokens=config.max_new_tokens or self.player.max_new_tokens,
        )

    def settings(self) -> CollectConfig:
        """Settings of the collection, with the oracle in place of the model.

        Raises:
            ConfigError: The environment is unknown.
        """
        config, environment = self.config, self.player.spec()
        play = RolloutConfig(
            environment=environment,
            sampling=self.sampling,
            attempts=config.attempts,
            min_reward=(
                threshold_of(environment) if config.min_reward is None else config.min_reward
            ),
            max_concurrency=config.batch_size,
        )
        tasks = len(environment.task_ids("train"))
        return CollectConfig(
            play=play,
            out=self.folder / FOLDER,
            num_tasks=min(config.num_tasks, tasks),
            seed=self.seed,
            filters=config.filters,
        )

    def played(self) -> Iterator[tuple[int, Trajectory, int, str]]:
        """Yield each task's number, last episode, number of that attempt, and drop reason.

        The drop reason is "" for a kept episode.
        """
        settings = self.settings()
        sieve = TrajectoryFilter(settings.play.min_reward, settings.filters, UNFINISHED)
        store = SqliteRolloutLog(state_path(settings.out, settings.play.environment.name))
        try:
            for place, ending in store.endings():
                trajectory = ending.trajectory
                yield place, trajectory, ending.attempt, sieve.reason(trajectory)
        finally:
            store.close()


def collect_round(collection: Collection, say: Callable[[str], None]) -> Facts:
    """Play a round's tasks with the current model; resumes what a killed process began.

    Args:
        collection: What to collect.
        say: Called with a line every 30 seconds.

    Raises:
        CollectionStoppedError: It was stopped before all tasks were played.
        AgentTuningError: The model cannot be loaded or served, or the environment does not run.
    """
    settings = collection.settings()
    settings.check()
    with _player(collection, settings.play) as play:
        report = run(replace(settings, play=play), watch=_reporter(say))
    if report["stopped"]:
        raise CollectionStoppedError(
            f"{settings.out}: collecting stopped: {report['stopped']}; run the same command to "
            "resume"
        )
    return _facts(collection, report)


def _reporter(say: Callable[[str], None]) -> Watch:
    def watch(tally: CollectionProgress, engine: CollectionEngine) -> None:
        loop = asyncio.get_running_loop()

        def line() -> None:
            text = f"{tally.done} of {tally.total} tasks ended, {tally.kept} kept"
            if engine.stopped:
                text += f"; {engine.stopped}: running episodes end first, a second signal ends now"
            say(text)
            loop.call_later(_SECONDS_BETWEEN_LINES, line)

        loop.call_later(_SECONDS_BETWEEN_LINES, line)

    return watch


def _facts(collection: Collection, report: dict[str, Any]) -> Facts:
    kinds: dict[str, Counter[str]] = {}
    first = 0
    for _, trajectory, attempt, reason in collection.played():
        kind = kinds.setdefault(str(trajectory.details.get("kind", "")), Counter())
        kind["tasks"] += 1
        kind["kept"] += not reason
        first += not reason and attempt == 0
    names = ("tasks", "attempts", "kept", "dropped")
    return {
        **{name: report[name] for name in names},
        "kept_at_first_attempt": first,
        "kinds": {name: dict(kinds[name]) for name in sorted(kinds)},
        "model": str(collection.model),
        "seed": collection.seed,
    }


@contextmanager
def _player(collection: Collection, play: RolloutConfig) -> Iterator[RolloutConfig]:
    """The settings of play with the current model, loaded or served."""
    if collection.config.serve is None:
        with loaded_player(collection.model, collection.sampling) as local:
            yield replace(play, local=local)
        return
    with _served(collection) as endpoint:
        yield replace(play, endpoint=endpoint)


@contextmanager
def _served(collection: Collection) -> Iterator[Endpoint]:
    from agenttuning_plugin.serving.command import ServeOptions, serve_command
    from agenttuning_plugin.serving.process import LOG, running, wait_until_up
    from agenttuning_plugin.serving.programs import TRANSFORMERS, find_server
    from agenttuning_plugin.serving.run_folder import read_run

    program = find_server(collection.config.serve)
    options = ServeOptions(port=_free_port())
    model = find_trained(collection.model)
    # `transformers serve` loads no adapter.
    merges = bool(model.adapter) and program.kind == TRANSFORMERS
    merged = merged_model(model.folder, collection.folder) if merges else None
    command = serve_command(read_run(model.folder, merged), program, options)
    log = collection.folder / LOG
    with running(command, log) as process:
        wait_until_up(process, command, log)
        yield Endpoint(command.model_name, command.base_url)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
