"""Rewards of recorded rollouts: read them, and drop the rollouts below a minimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dataset_builders.readers.building import Converted, RecordDroppedError
from dataset_builders.readers.files import Record
from dataset_builders.tools import finite_number

BELOW_THRESHOLD = "reward_below_threshold"
"""Drop reason of a rollout whose reward is below `min_reward` of its source."""

NO_REWARD = "no_reward"
"""Drop reason of a rollout without a reward, where `min_reward` is set."""

BAD_REWARD = "bad_reward"
"""Drop reason of a rollout whose reward is not a finite number."""


def number_of(value: Any, where: str) -> float | None:
    """Return a recorded reward, None if there is none.

    Args:
        value: The field's value.
        where: Name of the field.

    Raises:
        RecordDroppedError: It is not a finite number (`bad_reward`).
    """
    if value is None:
        return None
    number = finite_number(value)
    if number is None:
        raise RecordDroppedError(BAD_REWARD, f"{where}: found {value!r:.80}, expected a number")
    return number


def one_of(values: Any, where: str) -> float | None:
    """Return the reward among several named ones: `reward`, or the only one.

    Args:
        values: The rewards by name.
        where: Name of the field that holds them.

    Raises:
        RecordDroppedError: They are not an object, it is not a finite number, or there are several
            and none is named `reward` (`bad_reward`).
    """
    if values is None or values == {}:
        return None
    if not isinstance(values, Mapping):
        raise RecordDroppedError(
            BAD_REWARD, f"{where}: found {values!r:.80}, expected an object of numbers"
        )
    name = "reward" if "reward" in values else next(iter(values))
    if name != "reward" and len(values) > 1:
        names = ", ".join(map(str, values))
        raise RecordDroppedError(
            BAD_REWARD, f"{where}: found {names:.80}, expected one reward, or one named reward"
        )
    return number_of(values[name], f"{where}.{name}")


def with_min_reward(
    record: Record, *, convert: Callable[[Record], Converted], minimum: float
) -> Converted:
    """Convert a record, and drop it if its reward is below the minimum.

    Args:
        record: The record.
        convert: Its format's converter.
        minimum: Minimum reward to keep.

    Raises:
        RecordDroppedError: The reward is lower (`reward_below_threshold`), or there is none
            (`no_reward`); also what the converter raises.
    """
    converted = convert(record)
    reward = converted.conversation.reward
    if reward is None:
        raw = record.value.get("reward") if isinstance(record.value, Mapping) else None
        number_of(raw, "reward")
        raise RecordDroppedError(NO_REWARD, "reward: found none, expected one for min_reward")
    if reward < minimum:
        raise RecordDroppedError(
            BELOW_THRESHOLD, f"reward: found {reward:.6g}, expected at least {minimum:.6g}"
        )
    return converted
