"""Settings of a collection, and which of them determine the data."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.ray_cluster import Cluster
from dataset_builders.environments.references import code_digest
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.rollouts.limits import Limits

ORACLE = "oracle"
TRAIN = "train"
CODE = "environment code"
"""Name of the digest of an own environment's file in the fingerprint."""


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """Settings of a collection.

    Attributes:
        play: What is played, and how.
        out: Folder of the collection. Several environments may share one.
        num_tasks: Number of tasks to select; if None all, or all given ones.
        tasks: Task ids to play, instead of selecting.
        split: Only "train": data from an evaluation split would spoil the evaluation.
        seed: Seed of the selection.
        filters: Additional filters, such as "max_rounds=10"; see `filters`.
        limits: What the whole run may take. Tokens and cost count earlier sessions, too;
            where they are reached, no further request is sent, and what is in play stays
            open. Time is that of one session; running episodes continue to their end.
        cluster: The Ray cluster to play on; this process alone plays if None.
        accept_changed_code: Resume although an own environment's file has changed.
    """

    play: RolloutConfig
    out: Path
    num_tasks: int | None = None
    tasks: Sequence[str] | None = None
    split: str = TRAIN
    seed: int = 0
    filters: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)
    cluster: Cluster | None = None
    accept_changed_code: bool = False

    @property
    def model(self) -> str:
        """The acting model's name, or "oracle"."""
        if self.play.local is not None:
            return self.play.local.name
        return self.play.endpoint.model if self.play.endpoint else ORACLE

    def check(self) -> None:
        """Validate the settings.

        Raises:
            ConfigError: A setting is out of range, or needs another one.
            MissingExtraError: The client of the endpoint is not installed.
        """
        play = self.play
        if play.endpoint is not None:
            play.endpoint.check()
        if play.local is not None and (play.endpoint is not None or self.cluster is not None):
            other = "an endpoint" if play.endpoint is not None else "a cluster"
            raise ConfigError(f"a local model: found {other} too, expected one of the two")
        if play.environment.dialogue.held_out:
            raise ConfigError(
                f"{play.environment.reference}: declared held out (held_out = True), expected an "
                "environment whose training split may become data"
            )
        if self.split != TRAIN:
            raise ConfigError(
                f"split {self.split!r} is for evaluation; only {TRAIN!r} may be collected"
            )
        for name in ("attempts", "max_concurrency"):
            if getattr(play, name) < 1:
                raise ConfigError(f"{name}: found {getattr(play, name)}, expected at least 1")
        if not 0 <= play.min_reward <= 1:
            raise ConfigError(f"min_reward: found {play.min_reward}, expected 0 to 1")
        costs = self.limits.cost is not None or play.limits.cost is not None
        if costs and play.endpoint and not play.prices.knows(play.endpoint.model):
            raise ConfigError(
                f"a limit on cost needs the price of {play.endpoint.model}; name it in `prices`"
            )

    def chosen(self) -> list[str]:
        """Return the selected tasks, in order.

        Raises:
            ConfigError: A named task is not of the training split, or there are fewer
                tasks than wanted, or only made-up ones.
        """
        self.play.environment.check_real()
        self.play.environment.check_splits()
        known = self.play.environment.task_ids(self.split)
        if self.tasks is None:
            number = len(known) if self.num_tasks is None else self.num_tasks
            return draw_tasks(known, number, self.seed)
        among = frozenset(known)
        for task_id in self.tasks:
            if task_id not in among:
                raise ConfigError(
                    f"task {task_id!r} is not in the split {self.split!r} of "
                    f"{self.play.environment.name}, such as {known[0]}"
                )
        return list(dict.fromkeys(self.tasks))[: self.num_tasks]

    def fingerprint(self, prompt: str) -> dict[str, Any]:
        """Return the settings that the data depend on; a collection resumes only with equal ones.

        Excluded is what may change between sessions: the endpoint's address,
        its patience, prices, concurrency, filters, limits of the run and more tasks.

        Args:
            prompt: Label of the prompt template.
        """
        play, spec = self.play, self.play.environment
        options = {name: _plain(value) for name, value in spec.options.items() if name != "data"}
        settings: dict[str, Any] = {
            "environment": spec.name,
            "environment options": options,
            "prompt": prompt,
            "split": self.split,
            "model": self.model,
            "seed": self.seed if self.tasks is None else "tasks are named",
            "attempts": play.attempts,
            **{f"limit on {name}": value for name, value in asdict(play.limits).items()},
        }
        if play.attempts > 1:  # In that case it decides which attempt is the last.
            settings["min_reward"] = play.min_reward
        if not play.plays_oracle:
            sampling = asdict(play.sampling).items()
            settings |= {f"sampling's {name}": _plain(value) for name, value in sampling}
        if spec.is_own:
            settings["reference"] = spec.reference
            if digest := code_digest(spec.place):
                settings[CODE] = digest
        return settings


def draw_tasks(task_ids: Sequence[str], num_tasks: int, seed: int) -> list[str]:
    """Select tasks without repetition; a larger selection begins with a smaller one.

    Raises:
        ConfigError: There are too few tasks.
    """
    if not 1 <= num_tasks <= len(task_ids):
        raise ConfigError(f"num_tasks: found {num_tasks}, expected 1 to {len(task_ids)}")
    # Shuffled whole and then cut.
    return random.Random(f"agenttuning/collect/{seed}").sample(task_ids, len(task_ids))[:num_tasks]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def read_task_file(path: Path) -> list[str]:
    """Read task ids, one per line; empty lines and comments (#) are skipped.

    Raises:
        SourceNotFoundError: There is no such file.
        ConfigError: It lists no task, or is not text.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise SourceNotFoundError(f"{path}: {error.strerror}: expected task ids") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected task ids in UTF-8: {error}") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise ConfigError(f"{path}: found no task, expected one per line")
    return names
