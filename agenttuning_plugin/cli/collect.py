"""`agenttuning collect`."""

from __future__ import annotations

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
from agenttuning_plugin.cli.request_options import json_fields
from agenttuning_plugin.console import errors
from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from dataset_builders.collection.ray_cluster import Cluster

_EPISODE = "Limits of an episode"
_RUN = "Limits of the run"
_MODEL = "Model"
_CLUSTER = "Cluster"


@naming_options(OPTIONS)
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
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Play with the environment's oracle instead of a model."),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Name of the model.", rich_help_panel=_MODEL)
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Base URL of the endpoint. [default: OPENAI_BASE_URL, or OpenAI's]",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable with the API key.", rich_help_panel=_MODEL)
    ] = "OPENAI_API_KEY",
    temperature: Annotated[
        float | None, typer.Option(min=0, help="[default: its own]", rich_help_panel=_MODEL)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="[default: its own]", rich_help_panel=_MODEL)
    ] = None,
    sampling_seed: Annotated[
        int | None,
        typer.Option(help="Sampling seed; attempt k uses seed + k.", rich_help_panel=_MODEL),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum tokens of a turn. [default: the benchmark's]",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    token_field: Annotated[
        str,
        typer.Option(
            help="Name of the token limit: max_tokens or max_completion_tokens.",
            rich_help_panel=_MODEL,
        ),
    ] = "max_tokens",
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Stop sequence; repeatable.", rich_help_panel=_MODEL),
    ] = None,
    request: Annotated[
        list[str] | None,
        typer.Option(help="Extra request field, as name=JSON; repeatable.", rich_help_panel=_MODEL),
    ] = None,
    request_timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Timeout of a request in seconds.", rich_help_panel=_MODEL),
    ] = 600.0,
    tries: Annotated[
        int,
        typer.Option(min=1, help="Maximum tries of a failing request.", rich_help_panel=_MODEL),
    ] = 8,
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
    episode_steps: Annotated[
        int | None, typer.Option(help="Maximum turns of an episode.", rich_help_panel=_EPISODE)
    ] = None,
    episode_tokens: Annotated[
        int | None,
        typer.Option(
            help="Maximum prompt and completion tokens of an episode.", rich_help_panel=_EPISODE
        ),
    ] = None,
    episode_cost: Annotated[
        float | None, typer.Option(help="By --prices.", rich_help_panel=_EPISODE)
    ] = None,
    episode_time: Annotated[
        float | None, typer.Option(help="Seconds.", rich_help_panel=_EPISODE)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens over all sessions.", rich_help_panel=_RUN)
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(help="Maximum cost over all sessions, by --prices.", rich_help_panel=_RUN),
    ] = None,
    max_time: Annotated[
        float | None, typer.Option(help="Maximum seconds of this session.", rich_help_panel=_RUN)
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="Price table, YAML or JSON; see docs/guides/collect.md.")
    ] = None,
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
) -> None:
    """Collect rewarded trajectories of a model in a held-in environment or one of your own.

    If interrupted, the same command resumes; no request is paid for twice.
    """
    from agenttuning_plugin.cli.collect_progress import showing
    from dataset_builders.collection.collector import run
    from dataset_builders.collection.engine import RolloutConfig
    from dataset_builders.collection.filters import threshold_of
    from dataset_builders.collection.settings import CollectConfig, read_task_file
    from dataset_builders.endpoints.endpoint import Endpoint
    from dataset_builders.endpoints.pricing import PriceTable, read_prices
    from dataset_builders.endpoints.requests import Sampling
    from dataset_builders.environments import load_environment
    from dataset_builders.instructions.thoughts import ThoughtAdder
    from dataset_builders.rollouts.limits import Limits

    if oracle == (model is not None):
        raise ConfigError("expected exactly one of --model and --oracle")
    if oracle and add_thoughts:
        raise ConfigError("--add-thoughts: found with --oracle, expected a --model to write them")
    named = parse_options(option)
    environment = load_environment(
        env, prompt=prompt, agentinstruct=agentinstruct, **({"data": data} | named)
    )
    play = RolloutConfig(
        environment=environment,
        endpoint=None
        if model is None
        else Endpoint(model, base_url, key_variable, timeout=request_timeout, tries=tries),
        sampling=Sampling(
            temperature=temperature,
            top_p=top_p,
            seed=sampling_seed,
            max_tokens=max_new_tokens,
            stop=tuple(stop or ()),
            token_field=token_field,
            extra=json_fields(request),
        ),
        limits=Limits(episode_steps, episode_tokens, episode_cost, episode_time),
        attempts=attempts,
        min_reward=threshold_of(environment) if min_reward is None else min_reward,
        max_concurrency=max_concurrency,
        prices=read_prices(prices) if prices else PriceTable(),
    )
    with naming_options(options_of_limits()):
        most = Limits(None, max_tokens, max_cost, max_time)
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
    )
    config.check()  # Before anything is shown or made.
    finish = ThoughtAdder(play.environment) if add_thoughts else None
    with showing(errors, play.endpoint) as progress:
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


def _cluster(engine: str, address: str | None) -> Cluster | None:
    from dataset_builders.collection.ray_cluster import Cluster

    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine: found {engine!r}, expected local or ray")
    if engine == "local" and address is not None:
        raise ConfigError("--ray-address needs --engine ray")
    return Cluster(address) if engine == "ray" else None
