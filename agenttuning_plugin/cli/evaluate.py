"""`agenttuning evaluate`: options and result table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from agenttuning_plugin.cli.common import (
    EnvironmentOptions,
    Json,
    emit,
    name_options,
    options_of,
    parse_options,
)
from agenttuning_plugin.cli.model_options import OptionGroup, with_options
from agenttuning_plugin.config.evaluation_run import EvaluationRun, is_url
from agenttuning_plugin.console import errors
from dataset_builders.errors import ConfigError
from dataset_builders.settings import fields_of, read_settings
from evaluators.models.judge_settings import JudgeSettings
from evaluators.tasks.registry import IN_FLIGHT, SuiteSettings

_EXTRA = ("replay", "loss")
_BATCH = 16


_RUN = OptionGroup(EvaluationRun, skip=("suites", "tasks"), defaults={"model": None})
_TASKS = OptionGroup(
    SuiteSettings, skip=("judge", "options", "seed"), defaults={"batch_size": None}
)
_JUDGE = OptionGroup(
    JudgeSettings,
    names={name: f"judge_{name}" for name in fields_of(JudgeSettings)},
    defaults={"model": None},
)


@with_options(_RUN, _TASKS, _JUDGE)
def evaluate(
    context: typer.Context,
    positional: Annotated[str | None, typer.Argument(metavar="MODEL", help="As --model.")] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="held-in, held-out, general, all, a task such as gsm8k, refusal, lm_eval/TASK, "
            "replay, loss, module:Class or ./file.py:Class of your own environment; several with "
            "commas, repeatable. [default: held-in]"
        ),
    ] = None,
    option: EnvironmentOptions = None,
    as_json: Json = False,
    **given: Any,
) -> None:
    """Evaluate a model on held-in and held-out agent tasks and general benchmarks."""
    from agenttuning_plugin.evaluation.measure import measure, report, report_failure
    from agenttuning_plugin.evaluation.table import show_panel

    names, settings = _names(suite), _RUN.values(given)
    settings["model"] = _one_model(positional, settings["model"], given["oracle"])
    judge = _JUDGE.values(given)
    tasks = _TASKS.values(given) | {
        "judge": read_settings(JudgeSettings, judge, "judge") if judge["model"] else None,
        "options": options_by_task(option, names),
    }
    if tasks["batch_size"] is None:
        tasks["batch_size"] = IN_FLIGHT if is_url(settings["model"]) else _BATCH
    run = EvaluationRun(suites=tuple(names), tasks=SuiteSettings(**tasks), **settings)
    try:
        panel = measure(run)
    except KeyboardInterrupt:
        errors.print("stopped" + (": run the same command to resume" if run.out else ""))
        raise typer.Exit(130) from None
    for name, result in panel.results.items():
        error = name_options(result.error, options_of(context.command), leading=False)
        panel.results[name] = replace(result, error=error)
    if as_json:
        emit(show_panel(panel, run.limit).as_json())
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
    from evaluators.tasks.registry import BENCHMARKS, FURTHER, LM_EVAL, SUITES, is_benchmark

    listed = [name.strip() for text in suite or ["held-in"] for name in text.split(",")]
    given = [each for name in listed for each in (SUITES if name == "all" else (name,))]
    groups = ["all", *SUITES, *_EXTRA]
    known = [*groups, *(each.name for each in (*BENCHMARKS, *FURTHER)), f"{LM_EVAL}TASK"]
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
