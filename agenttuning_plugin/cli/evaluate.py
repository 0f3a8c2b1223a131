"""`agenttuning evaluate`: options and result table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agenttuning_plugin.cli.common import (
    ENVIRONMENT_OPTIONS,
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
    naming_options,
    parse_options,
)
from agenttuning_plugin.console import console, errors, plain, writing
from agenttuning_plugin.evaluation.progress import with_bars
from agenttuning_plugin.evaluation.request_options import (
    JudgeFields,
    JudgeTemperature,
    JudgeTokenField,
    RequestFields,
    Temperature,
    TokenField,
    configured,
    given_sampling,
    json_fields,
    judge_settings,
    sampling_heading,
)
from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from agenttuning_plugin.evaluation.suite import LazySubject, Task

_EXTRA = ("replay", "loss")
_BATCH = 16
_IN_FLIGHT = 64
"""Default concurrency: rows of a local batch, or requests to a server."""


@naming_options(ENVIRONMENT_OPTIONS)
def evaluate(
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
            "loss; several with commas, repeatable. [default: held-in]"
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
    from agenttuning_plugin.evaluation import suite as evaluation
    from agenttuning_plugin.evaluation.model_loading import is_url, open_subject
    from agenttuning_plugin.evaluation.output_dir import resolved, weights_digest
    from agenttuning_plugin.evaluation.table import show_panel
    from evaluators.tasks.registry import SuiteSettings

    place = _one_model(positional, model, oracle)
    names = _names(suite)
    most = batch_size or (_IN_FLIGHT if is_url(place) else _BATCH)
    variables = json_fields(chat_template_kwargs, "--chat-template-kwargs")
    sampling = given_sampling(
        temperature, token_field, request, variables if is_url(place) else None
    )
    judge = judge_settings(
        *(judge_model, judge_base_url, judge_api_key_env),
        *(judge_temperature, judge_token_field, judge_request),
    )
    settings = SuiteSettings(
        data=data,
        prompt=prompt,
        agentinstruct=agentinstruct,
        batch_size=most,
        max_new_tokens=max_new_tokens,
        judge=judge,
        options=options_by_task(option, names),
        oracle=oracle,
    )
    subject = evaluation.LazySubject(
        lambda: configured(
            open_subject(
                place,
                adapter,
                chat_template=chat_template,
                chat_template_kwargs=variables,
                end_of_turn=tuple(end_of_turn or ()),
                model_name=model_name,
                api_key_env=api_key_env,
                max_concurrency=most,
            ),
            sampling,
        ),
        out,
    )
    tasks = evaluation.suite_tasks([name for name in names if name not in _EXTRA], settings)
    if "replay" in names:
        tasks.append(_replay(replay_data, subject, max_length))
    if "loss" in names or general is not None:
        tasks.append(_loss(general, subject, num_conversations, max_length))
    heading = {
        "model": "oracle" if oracle else model_name or resolved(place),
        "weights": weights_digest(place),
        "adapter": weights_digest(adapter or ""),
        "chat_template": chat_template or "",
        **({"chat_template_kwargs": variables} if variables else {}),
        "end_of_turn": list(end_of_turn or ()),
        "max_new_tokens": max_new_tokens,
        **sampling_heading(sampling),
    }
    run = evaluation.Run(subject, limit, out, step, heading, oracle)
    try:
        with writing(out):
            panel = with_bars(lambda bars: evaluation.run_panel(tasks, run, bars))
    except KeyboardInterrupt:
        errors.print("stopped" + (": run the same command to resume" if out else ""))
        raise typer.Exit(130) from None
    finally:
        subject.close()
    if as_json:
        emit(show_panel(panel, limit).as_json())
    else:
        show_panel(panel, limit).print(console, title=str(heading["model"]))
    failed = f"not measured as specified: {', '.join(panel.broken)}" if panel.broken else ""
    if not any(result.metrics for result in panel.results.values()):
        failed = failed or "nothing was measured"
    if failed:
        errors.print(plain(failed))
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

    told = [name.strip() for text in suite or ["held-in"] for name in text.split(",")]
    given = [each for name in told for each in (SUITES if name == "all" else (name,))]
    groups = ["all", *SUITES, *_EXTRA]
    known = [*groups, *(benchmark.name for benchmark in BENCHMARKS), f"{LM_EVAL}TASK"]
    names = [name for name in given if name]
    for name in names:
        if name not in groups and not is_benchmark(name):
            raise ConfigError(f"--suite: found {name!r}, expected any of {', '.join(known)}")
    if not names:
        raise ConfigError(f"--suite: found no name, expected any of {', '.join(known)}")
    return names


def options_by_task(
    option: Sequence[str] | None, names: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Parse options by task: `database.backend=mariadb`, or without the task if there is only one.

    Args:
        option: As given.
        names: Suites and tasks to measure.

    Raises:
        ConfigError: An option is for a task that is not measured, or does not state its task.
    """
    from evaluators.tasks.registry import select

    chosen = [task.name for task in select([name for name in names if name not in _EXTRA])]
    found: dict[str, dict[str, Any]] = {}
    for key, value in parse_options(option).items():
        task, dot, name = key.partition(".")
        if not dot and len(chosen) != 1:
            raise ConfigError(
                f"--option: found {key!r} for {len(chosen)} tasks, expected the task's name "
                f"before it, such as database.{key}=..."
            )
        task, name = (task, name) if dot else (chosen[0], key)
        if task not in chosen:
            raise ConfigError(f"--option: found {key!r}, expected a task of {', '.join(chosen)}")
        found.setdefault(task, {})[name] = value
    return dict(found)


def _loss(
    general: str | None, subject: LazySubject, num_conversations: int, max_length: int
) -> Task:
    from agenttuning_plugin.evaluation.suite import Task

    def make() -> Any:
        from agenttuning_plugin.evaluation.conversations import loss_evaluator

        if general is None:
            raise ConfigError("loss: --general is missing, expected chat data")
        return loss_evaluator(general, subject(), num_conversations, max_length)

    return Task("general", "Loss on chat", "general", make)


def _replay(data: str | None, subject: LazySubject, max_length: int) -> Task:
    from agenttuning_plugin.evaluation.suite import Task

    def make() -> Any:
        from agenttuning_plugin.evaluation.conversations import replay_evaluator

        if data is None:
            raise ConfigError("replay: --replay-data is missing, expected trajectories")
        return replay_evaluator(data, subject(), max_length)

    return Task("replay", "Replay", "replay", make)
