"""Task ids of held-out benchmarks: prefix, name and number."""

from __future__ import annotations

from collections.abc import Collection

from dataset_builders.errors import ConfigError


def split_task_id(task_id: str, prefix: str, known: Collection[str]) -> tuple[str, int]:
    """Parse an id such as "miniwob-test-click-button-3" into name and number.

    Args:
        task_id: The id.
        prefix: Benchmark and split, such as "miniwob-test-".
        known: All ids of the split.

    Raises:
        ConfigError: It is not one of them.
    """
    if task_id not in known:
        benchmark, split, _ = prefix.rsplit("-", 2)
        raise ConfigError(
            f"task {task_id!r} is unknown; expected one of {benchmark}'s {split} split, "
            f"such as {next(iter(known))}"
        )
    name, _, number = task_id.removeprefix(prefix).rpartition("-")
    return name, int(number)
