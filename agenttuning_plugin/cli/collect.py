"""`agenttuning collect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agenttuning_plugin.cli.collect_options import (
    OPTIONS,
    lost_to_calls,
    options_of_limits,
    show,
    warn,
)
from agenttuning_plugin.cli.common import Json, emit, naming_options, parse_options
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.console import errors
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.limits import Limits

if TYPE_CHECKING:
    from dataset_builders.collection.ray_cluster import Cluster
    from dataset_builders.collection.settings import CollectConfig

_MODEL = "Model"
_CLUSTER = "Cluster"


_ENDPOINT = OptionGroup(
    Endpoint,
    skip=("patience", "back_off"),
    names={"timeout": "request_timeout"},
    defaults={"model": None},
    panel=_MODEL,
)
_SAMPLING = OptionGroup(
    Sampling,
    names={"seed": "sampling_seed", "max_tokens": "max_new_tokens", "extra": "request"},
    panel=_MODEL,
)
_OF_EPISODE = OptionGroup(
    Limits,
    names={
        "steps": "episode_steps",
        "tokens": "episode_tokens",
        "cost": "episode_cost",
        "seconds": "episode_time",
    },
    panel="Limits of an episode",
)
_OF_RUN = OptionGroup(
    Limits,
    skip=("steps",),
    names={"tokens": "max_tokens", "cost": "max_cost", "seconds": "max_time"},
    panel="Limits of the run, over all sessions; the time is this session's",
)


@naming_options(OPTIONS)
@with_options(_ENDPOINT, _SAMPLING, _OF_EPISODE, _OF_RUN)
def collect(
    env: Annotated[
        str,
        typer.Option(
            help="Held-in environment, such as database, or module:Class, ./file.py:Class."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; an existing collection is resumed.")],
    num_tasks: Annotated[
        int | None, typer.Option(min=1, help="Number of training tasks. [default: all]")
    ] = None,
    tasks: Annotated[Path | None, typer.Option(help="File with task ids, one per line.")] = None,
    split: Annotated[str, typer.Option(help="Only train is allowed.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed for selecting tasks.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Folder of the environment's data.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Environment option, such as backend=mariadb; repeatable."),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt template: own (built in) or published (from AgentInstruct).")
    ] = "own",
    agentinstruct: Annotated[
        str | None, typer.Option(help="AgentInstruct copy, for the published prompts.")
    ] = None,
    prompt_suffix: Annotated[
        str, typer.Option(help="Text appended to the prompt; see docs/methods/negatives.md.")
    ] = "",
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Play with the environment's oracle instead of a model."),
    ] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Load --model, a folder or hub id, in this process instead of asking a server.",
            rich_help_panel=_MODEL,
        ),
    ] = False,
    max_concurrency: Annotated[
        int,
        typer.Option(
            min=1,
            help="Maximum concurrent episodes; adapted to the endpoint below that.",
            rich_help_panel=_MODEL,
        ),
    ] = 64,
    attempts: Annotated[
        int, typer.Option(min=1, help="Maximum attempts per task, until one passes the filters.")
    ] = 1,
    min_reward: Annotated[
        float | None, typer.Option(help="Minimum reward to keep. [default: the paper's]")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Additional filter, NAME or NAME=N, see docs/guides/collect.md; repeatable: "
            "all_valid_format, has_thought, max_characters, max_rounds, min_rounds, "
            "no_cut_turns (always on, with 0), no_refusal, no_repetition.",
        ),
    ] = None,
    add_thoughts: Annotated[
        bool,
        typer.Option(
            "--add-thoughts", help="Let the model add thoughts to kept turns that lack one."
        ),
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="Price table, YAML or JSON; see docs/guides/collect.md.")
    ] = None,
    accept_changed_code: Annotated[
        bool,
        typer.Option(
            "--accept-changed-code",
            help="Resume although the file of your own environment has changed.",
        ),
    ] = False,
    engine: Annotated[
        str, typer.Option(help="local or ray (a Ray cluster).", rich_help_panel=_CLUSTER)
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray address, such as 10.0.0.1:6379. [default: RAY_ADDRESS, or this machine]",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Collect rewarded trajectories of a model in a held-in environment or one of your own.

    If interrupted, the same command resumes; no request is paid for twice.
    """
    from agenttuning_plugin.cli.collect_progress import showing
    from dataset_builders.collection.collector import run
    from dataset_builders.collection.engine import RolloutConfig
    from dataset_builders.collection.filters import threshold_of
    from dataset_builders.collection.settings import CollectConfig, read_task_file
    from dataset_builders.endpoints.pricing import PriceTable, read_prices
    from dataset_builders.environments import load_environment
    from dataset_builders.instructions.thoughts import ThoughtAdder

    if oracle == (given["model"] is not None):
        raise ConfigError("expected exactly one of --model and --oracle")
    if oracle and add_thoughts:
        raise ConfigError("--add-thoughts: found with --oracle, expected a --model to write them")
    if local:
        _check_local(oracle, add_thoughts, given)
    named = parse_options(option)
    environment = load_environment(
        env,
        prompt=prompt,
        agentinstruct=agentinstruct,
        prompt_suffix=prompt_suffix,
        **({"data": data} | named),
    )
    play = RolloutConfig(
        environment=environment,
        endpoint=None if oracle or local else Endpoint(**_ENDPOINT.values(given)),
        sampling=Sampling(**_SAMPLING.values(given)),
        limits=Limits(**_OF_EPISODE.values(given)),
        attempts=attempts,
        min_reward=threshold_of(environment) if min_reward is None else min_reward,
        max_concurrency=max_concurrency,
        prices=read_prices(prices) if prices else PriceTable(),
    )
    with naming_options(options_of_limits()):
        most = Limits(**_OF_RUN.values(given))
    config = CollectConfig(
        play=play,
        out=out,
        num_tasks=num_tasks,
        tasks=read_task_file(tasks) if tasks else None,
        split=split,
        seed=seed,
        filters=tuple(keep or ()),
        limits=most,
        cluster=_cluster(engine, ray_address),
        accept_changed_code=accept_changed_code,
    )
    config.check()  # Before anything is shown or made.
    finish = ThoughtAdder(play.environment) if add_thoughts else None
    with showing(errors, play.endpoint) as progress, _playing(config, given, local) as config:
        report = run(config, watch=progress.watch, finish=finish)
    _finish(report, out, as_json=as_json, has_tool_form=bool(play.environment.dialogue.tool_form))


def _finish(report: dict[str, Any], out: Path, *, as_json: bool, has_tool_form: bool) -> None:
    if as_json:
        emit(report)
    else:
        show(report, out, has_tool_form=has_tool_form)
    if report["stopped"]:
        raise typer.Exit(130 if report["stopped"] == "interrupted" else 3)
    if lost_to_calls(report):
        if as_json:
            warn(report, has_tool_form=has_tool_form)
        raise typer.Exit(1)


def _check_local(oracle: bool, add_thoughts: bool, given: Mapping[str, Any]) -> None:
    """Refuse options that only a server can apply."""
    refused = {
        "--oracle": oracle,
        "--add-thoughts": add_thoughts,
        "--base-url": given["base_url"] is not None,
        "--request": bool(given["request"]),
        "--max-tokens": given["max_tokens"] is not None,
        "--max-cost": given["max_cost"] is not None,
        "--episode-tokens": given["episode_tokens"] is not None,
        "--episode-cost": given["episode_cost"] is not None,
    }
    if found := [option for option, is_set in refused.items() if is_set]:
        raise ConfigError(
            f"--local: found with {found[0]}, expected a model in this process alone: it has no "
            "endpoint, whose requests are counted and priced"
        )


@contextmanager
def _playing(
    config: CollectConfig, given: Mapping[str, Any], local: bool
) -> Iterator[CollectConfig]:
    """The settings, with the model loaded if it plays in this process."""
    if not local:
        yield config
        return
    from agenttuning_plugin.evaluation.local_player import loaded_player

    with loaded_player(given["model"], config.play.sampling) as player:
        yield replace(config, play=replace(config.play, local=player))


def _cluster(engine: str, address: str | None) -> Cluster | None:
    from dataset_builders.collection.ray_cluster import Cluster

    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine: found {engine!r}, expected local or ray")
    if engine == "local" and address is not None:
        raise ConfigError("--ray-address needs --engine ray")
    return Cluster(address) if engine == "ray" else None
