"""Making training data by playing held-in environments (AgentTuning, section 2.1).

The paper keeps a trajectory only if its reward is 1 (2/3 for Mind2Web, section 2.1.3):
a filter that needs no judge, because the environment itself scores.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.output import SOURCE as SOURCE
from dataset_builders.conversation import Conversation, optional_columns, to_row
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.rollout import ChatPolicy, play, play_oracle


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What a collection brought.

    Attributes:
        conversations: The kept trajectories, in the order of their tasks.
        counts: "played", "kept", and the number dropped for each reason, see `filters`.
            Reasons that did not occur are absent; "played" is the sum of all others.
    """

    conversations: list[Conversation]
    counts: dict[str, int]


def collect(
    environment_name: str,
    *,
    split: str = "train",
    num_tasks: int,
    policy: ChatPolicy | None = None,
    min_reward: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> CollectResult:
    """Play tasks of a held-in environment and keep what the reward approves.

    Args:
        environment_name: A name in `dataset_builders.environments.HELD_IN`.
        split: Only "train": data from an evaluation split would spoil the evaluation.
        num_tasks: Tasks to play, drawn without repetition.
        policy: What acts; the environment's oracle if absent.
        min_reward: Smallest reward that is kept, in [0, 1]. 0 keeps the failures too,
            as in the paper's ablation without a filter.
        seed: Seeds the draw of tasks.
        batch_size: Episodes in play at a time.
        on_progress: Called with every trajectory, as soon as it is finished.

    Returns:
        The conversations, of source "collected" and with the environment's name as
        task, and the counts.

    Raises:
        ConfigError: The environment is unknown or not held-in, the split is not
            "train", a number is out of range, or its data are made up.
    """
    if split != "train":
        raise ConfigError(f"split {split!r} is for evaluation; only 'train' may be collected")
    sieve = TrajectoryFilter(min_reward)
    environment = load_environment(environment_name)
    environment.check_real()
    task_ids = draw_tasks(environment.task_ids(split), num_tasks, seed)
    if policy is None:
        played = play_oracle(environment, task_ids, batch_size=batch_size, on_progress=on_progress)
    else:
        played = play(environment, task_ids, policy, batch_size=batch_size, on_progress=on_progress)
    return _sift(played, sieve)


def draw_tasks(task_ids: Sequence[str], num_tasks: int, seed: int) -> list[str]:
    """Draw tasks without repetition; a larger draw begins with a smaller one.

    Raises:
        ConfigError: There are not so many tasks.
    """
    if not 1 <= num_tasks <= len(task_ids):
        raise ConfigError(f"num_tasks: found {num_tasks}, expected 1 to {len(task_ids)}")
    # Shuffled whole and then cut.
    return random.Random(f"agenttuning/collect/{seed}").sample(task_ids, len(task_ids))[:num_tasks]


def _sift(trajectories: Sequence[Trajectory], sieve: TrajectoryFilter) -> CollectResult:
    kept = [trajectory for trajectory in trajectories if sieve.keeps(trajectory)]
    return CollectResult(
        conversations=[to_conversation(trajectory) for trajectory in kept],
        counts=dict(sieve.counts),
    )


def to_conversation(trajectory: Trajectory) -> Conversation:
    """Turn a trajectory into a conversation that trains the policy's own turns.

    Raises:
        DataError: The trajectory has no message.
    """
    return Conversation.create(
        trajectory.messages,
        id=trajectory.task_id,
        source=SOURCE,
        task=trajectory.environment,
    )


def write_jsonl(path: str | os.PathLike[str], conversations: Sequence[Conversation]) -> None:
    """Write conversations in the `messages` shape, one JSON object a line, UTF-8.

    The file appears at once and whole: whoever reads `path` meanwhile finds the old
    content or the new one.

    Args:
        path: The file; its folder is made if need be.
        conversations: What to write; none makes an empty file.

    Raises:
        OSError: The file cannot be written.
        UnicodeEncodeError: A text holds a lone surrogate; `path` is left as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    columns = optional_columns(conversations)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for conversation in conversations:
                row = to_row(conversation, **columns)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
