"""Plan of rounds for `--dry-run`; nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.section import AgentTuningConfig
from agenttuning_plugin.rounds.collecting import Collection
from agenttuning_plugin.rounds.measuring import player_of
from agenttuning_plugin.rounds.settings import RoundsConfig
from agenttuning_plugin.rounds.training import find_finished
from dataset_builders.collection.filters import parse_filters

_DATA = {
    "add": "the recipe's agent data and all rounds' kept episodes",
    "latest": "the recipe's agent data and this round's kept episodes",
    "replace": "all rounds' kept episodes only",
}


def plan_lines(
    config: RoundsConfig, section: Mapping[str, Any], base_model: str, out: Path, start: Path | None
) -> list[str]:
    """Describe the planned rounds, one line each, after the checks that a run makes.

    Raises:
        ConfigError: A setting cannot work.
        AgentTuningError: The environment's data are missing.
    """
    parse_filters(config.filters)
    if start is not None:
        find_finished(start)
    parsed = AgentTuningConfig(**section)
    player = player_of(parsed, config)
    collection = Collection(config, player, 1, start or Path(), out / "round-1")
    settings = collection.settings()
    settings.check()
    tasks = len(settings.chosen())
    with_server = f"behind {config.serve}" if config.serve else "in this process"
    floors = ", ".join(f"{each.evaluator} ({each.by:.0%})" for each in parsed.evaluation.floors)
    base = base_model if config.train_from == "base" else "the last accepted model, merged"
    own = f"{player.key} on {player.num_tasks} tasks of split {player.split!r}"
    evaluators = [own, *(each.key for each in parsed.evaluators if each.key != player.key)]
    return [
        f"start: {start or f'{base_model}, trained on the recipe as it is first'}",
        f"each of {config.rounds} rounds:",
        f"1. collect: {tasks} training tasks of {settings.play.environment.reference} with the "
        f"last accepted model {with_server}, temperature {config.temperature:g}, up to "
        f"{config.attempts} attempts each: at most {tasks * config.attempts:,} episodes; other "
        "tasks and samples in each round",
        f"2. keep: reward of at least {settings.play.min_reward:g}"
        + "".join(f", {each}" for each in config.filters)
        + f", no duplicates, at most {config.per_task} per task",
        f"3. train: {base} on {_DATA[config.data]}, with the recipe's other settings",
        f"4. evaluate: {', '.join(evaluators)}",
        f"5. accept if {player.key} rose (one-sided paired test, p < {config.alpha:g}) and no "
        f"floor broke: {floors or 'general and safety figures at most 5% worse than the base'}; "
        "else stop",
        f"result: {out / 'best'}, a link to the last accepted model; report: {out}/rounds.html",
    ]
