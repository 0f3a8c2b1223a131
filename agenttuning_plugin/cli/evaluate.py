"""`agenttuning evaluate`: options and result table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from agenttuning_plugin.cli.common import (
    AgentInstructCopy,
    ApiKeyEnv,
    EndOfTurn,
    EnvironmentOptions,
    EnvironmentPrompt,
    Json,
    ModelName,
    Template,
    TemplateVariables,
    emit,
    name_options,
    options_of,
    parse_options,
)
from agenttuning_plugin.cli.request_options import (
    JudgeFields,
    JudgeTemperature,
    JudgeTokenField,
    RequestFields,
    Temperature,
    TokenField,
    json_fields,
    judge_settings,
)
from agenttuning_plugin.console import errors
from dataset_builders.errors import ConfigError

_EXTRA = ("replay", "loss")
_BATCH = 16


def evaluate(
    context: typer.Context,
    positional: Annotated[str | None, typer.Argument(metavar="MODEL", help="As --model.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub id of a model or adapter, or URL of a server (…/v1)."),
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter to apply to the model.")] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="held-in, held-out, general, all, a task such as gsm8k, lm_eval/TASK, replay, "
            "loss, module:Class or ./file.py:Class of your own environment; several with commas, "
            "repeatable. [default: held-in]"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum items per task, the same ones every time.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for results and transcripts; an existing evaluation is resumed."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Folder with one data folder per task.")] = None,
    prompt: EnvironmentPrompt = "own",
    agentinstruct: AgentInstructCopy = None,
    option: EnvironmentOptions = None,
    general: Annotated[
        str | None, typer.Option(help="Chat data for the suite loss: file, folder or hub id.")
    ] = None,
    num_conversations: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of conversations for the suite loss, selected like `holdout` in a recipe.",
        ),
    ] = 64,
    max_length: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum tokens of a conversation for loss and replay, as in the recipe."
        ),
    ] = 4096,
    replay_data: Annotated[
        str | None,
        typer.Option(help="Expert trajectories for the suite replay: file, folder or hub id."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Judge model (MT-Bench, ReWOO).")] = None,
    judge_base_url: Annotated[str | None, typer.Option(help="Base URL of the judge model.")] = None,
    judge_api_key_env: Annotated[
        str, typer.Option(help="Environment variable with the judge's API key.")
    ] = "OPENAI_API_KEY",
    judge_temperature: JudgeTemperature = None,
    judge_token_field: JudgeTokenField = "max_tokens",
    judge_request: JudgeFields = None,
    temperature: Temperature = None,
    token_field: TokenField = "max_tokens",
    request: RequestFields = None,
    model_name: ModelName = None,
    api_key_env: ApiKeyEnv = "OPENAI_API_KEY",
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Play with the environments' oracles instead of a model."),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum concurrent episodes. [default: 16; on a server up to 64]"
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum tokens of an answer, if below the tasks' own; for trials."
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Training step of the model.")] = None,
    chat_template: Template = None,
    chat_template_kwargs: TemplateVariables = None,
    end_of_turn: EndOfTurn = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on held-in and held-out agent tasks and general benchmarks."""
    from agenttuning_plugin.evaluation.measure import EvaluationRun, measure, report, report_failure
    from agenttuning_plugin.evaluation.model_loading import is_url
    from agenttuning_plugin.evaluation.table import show_panel
    from evaluators.tasks.registry import IN_FLIGHT, SuiteSettings

    place = _one_model(positional, model, oracle)
    names = _names(suite)
    run = EvaluationRun(
        model=place,
        suites=tuple(names),
        tasks=SuiteSettings(
            data=data,
            prompt=prompt,
            agentinstruct=agentinstruct,
            batch_size=batch_size or (IN_FLIGHT if is_url(place) else _BATCH),
            max_new_tokens=max_new_tokens,
            judge=judge_settings(
                *(judge_model, judge_base_url, judge_api_key_env),
                *(judge_temperature, judge_token_field, judge_request),
            ),
            options=options_by_task(option, names),
            oracle=oracle,
        ),
        adapter=adapter,
        limit=limit,
        out=None if out is None else str(out),
        step=step,
        model_name=model_name,
        api_key_env=api_key_env,
        temperature=temperature,
        token_field=token_field,
        request=json_fields(request),
        chat_template=chat_template,
        chat_template_kwargs=json_fields(chat_template_kwargs, "--chat-template-kwargs"),
        end_of_turn=tuple(end_of_turn or ()),
        general=general,
        num_conversations=num_conversations,
        max_length=max_length,
        replay_data=replay_data,
    )
    try:
        panel = measure(run)
    except KeyboardInterrupt:
        errors.print("stopped" + (": run the same command to resume" if out else ""))
        raise typer.Exit(130) from None
    for name, result in panel.results.items():
        error = name_options(result.error, options_of(context.command), leading=False)
        panel.results[name] = replace(result, error=error)
    if as_json:
        emit(show_panel(panel, limit).as_json())
    if not (report_failure(panel) if as_json else report(panel, run)):
        raise typer.Exit(1)


def _one_model(positional: str | None, model: str | None, oracle: bool) -> str:
    given = [each for each in (positional, model) if each is not None]
    if oracle and not given:
        return ""
    if len(given) != 1 or oracle:
        found = "both an oracle and a model" if oracle else f"{len(given)} models"
        raise ConfigError(f"--model: found {found}, expected one of --model and --oracle")
    return given[0]


def _names(suite: Sequence[str] | None) -> list[str]:
    from evaluators.tasks.registry import BENCHMARKS, LM_EVAL, SUITES, is_benchmark

    listed = [name.strip() for text in suite or ["held-in"] for name in text.split(",")]
    given = [each for name in listed for each in (SUITES if name == "all" else (name,))]
    groups = ["all", *SUITES, *_EXTRA]
    known = [*groups, *(benchmark.name for benchmark in BENCHMARKS), f"{LM_EVAL}TASK"]
    known += ["module:Class", "./file.py:Class"]
    names = [name for name in given if name]
    for name in names:
        if name not in groups and not is_benchmark(name):
            raise ConfigError(f"--suite: found {name!r}, expected any of {', '.join(known)}")
    if not names:
        raise ConfigError(f"--suite: found no name, expected any of {', '.join(known)}")
    return names


def options_by_task(
    option: Sequence[str] | None, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Parse options by task: `database.backend=mariadb`, or without the task if there is only one.

    Args:
        option: As given.
        names: Suites and tasks to measure.

    Raises:
        ConfigError: An option is for a task that is not measured, or does not state its task.
    """
    from evaluators.tasks.registry import select

    tasks = select([name for name in names if name not in _EXTRA])
    chosen = [task.name for task in tasks]
    # A reference contains dots: its options may also begin with the environment's name.
    by_name = {each: task.name for task in tasks for each in (task.key, task.name)}
    found: dict[str, dict[str, Any]] = {}
    for key, value in parse_options(option).items():
        named = next((each for each in by_name if key.startswith(f"{each}.")), None)
        task, dot, name = key.partition(".") if named is None else _split(key, named, by_name)
        if not dot and len(chosen) != 1:
            raise ConfigError(
                f"--option: found {key!r} for {len(chosen)} tasks, expected the task's name "
                f"before it, such as database.{key}=..."
            )
        task, name = (task, name) if dot else (chosen[0], key)
        if task not in chosen:
            raise ConfigError(f"--option: found {key!r}, expected a task of {', '.join(chosen)}")
        found.setdefault(task, {})[name] = value
    return found


def _split(key: str, named: str, by_name: Mapping[str, str]) -> tuple[str, str, str]:
    return by_name[named], ".", key.removeprefix(f"{named}.")
