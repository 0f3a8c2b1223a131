"""`agenttuning instructions`: generate tasks by Task Derivation and Self-Instruct."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agenttuning_plugin.cli.common import (
    EnvironmentOptions,
    Json,
    emit,
    parse_options,
)
from agenttuning_plugin.console import console, errors, plain
from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from dataset_builders.instructions.guard import EvaluationGuard
    from dataset_builders.instructions.run_io import Writer
    from dataset_builders.instructions.task_kinds import TaskKind

instructions_app = typer.Typer(
    help="Generate tasks: Task Derivation (database) and Self-Instruct (os, database).",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Option(help="Output folder; an existing run is resumed.")]
BaseUrl = Annotated[
    str | None, typer.Option(help="OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1.")
]
KeyVariable = Annotated[str, typer.Option(help="Environment variable with its API key.")]
Temperature = Annotated[
    float | None,
    typer.Option(min=0.0, help="Sampling temperature; default: the endpoint's."),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Maximum concurrent requests.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Maximum tokens of the run.")]
MaxCost = Annotated[float | None, typer.Option(min=0.0, help="Maximum cost of the run.")]
Prices = Annotated[
    Path | None, typer.Option(help="YAML of prices per million tokens: {MODEL: {input, output}}.")
]
Evaluation = Annotated[
    list[str] | None,
    typer.Option(
        help="Additional evaluation set that tasks must not resemble: file, folder or hub id; "
        "repeatable."
    ),
]


@instructions_app.command()
def derive(
    pairs: Annotated[str, typer.Argument(help="JSON Lines file of questions with SQL and tables.")],
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(help="Model that writes the thoughts; without it only tasks are derived."),
    ] = None,
    templates: Annotated[
        bool, typer.Option(help="Use fixed sentences as thoughts, without a model.")
    ] = False,
    num_tasks: Annotated[
        int | None, typer.Option(min=1, help="Maximum tasks to keep. [default: all]")
    ] = None,
    base_url: BaseUrl = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    temperature: Temperature = None,
    concurrency: Concurrency = 16,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prices: Prices = None,
    evaluation: Evaluation = None,
    option: EnvironmentOptions = None,
    as_json: Json = False,
) -> None:
    """Derive database tasks and trajectories from questions with reference SQL."""
    from dataset_builders.instructions.database import DatabaseTasks
    from dataset_builders.instructions.derive_run import DeriveSettings
    from dataset_builders.instructions.derive_run import derive as run
    from dataset_builders.instructions.run_io import TASKS

    if model and templates:
        raise ConfigError("--model, --templates: found both, expected one of them")
    writer = None
    if model:
        writer = _writer(
            *(model, base_url, key_variable, temperature, concurrency),
            *(max_tokens, max_cost, prices),
        )
    settings = DeriveSettings(
        pairs, out, num_tasks, writer, templates=templates, options=parse_options(option)
    )
    report = asyncio.run(run(settings, _guard(DatabaseTasks(), evaluation)))
    if as_json:
        emit(report)
        _exit(report)
        return
    _show(report, "records", out)
    hint = f"agenttuning collect --env database --data {out / TASKS} --model NAME --out DIR"
    console.print(f"for a model to solve: {hint}", soft_wrap=True, markup=False, highlight=False)
    _exit(report)


@instructions_app.command()
def self_instruct(
    env: Annotated[str, typer.Option(help="Environment: os or database.")],
    model: Annotated[str, typer.Option(help="Model that writes the tasks.")],
    out: Out,
    num_tasks: Annotated[int, typer.Option(min=1, help="Tasks to keep.")] = 100,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum requests. [default: as --num-tasks]"),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seed tasks of your own: a .md file of tasks, or task files."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder or file of the train split used for examples.")
    ] = None,
    per_request: Annotated[int, typer.Option(min=1, help="Tasks per request.")] = 3,
    examples: Annotated[int, typer.Option(min=1, help="Example tasks per request.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed for selecting examples.")] = 0,
    base_url: BaseUrl = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    temperature: Temperature = None,
    concurrency: Concurrency = 4,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prices: Prices = None,
    evaluation: Evaluation = None,
    as_json: Json = False,
) -> None:
    """Let a model write tasks and keep those that pass execution checks."""
    from dataset_builders.instructions.proposal_filter import (
        SelfInstructReport,
        SelfInstructSettings,
    )
    from dataset_builders.instructions.self_instruct import run_self_instruct
    from dataset_builders.instructions.task_kinds import load_seeds

    kind = _kind(env)
    writer = _writer(
        *(model, base_url, key_variable, temperature, concurrency),
        *(max_tokens, max_cost, prices),
    )
    settings = SelfInstructSettings(
        num_tasks=num_tasks,
        max_requests=max_requests or num_tasks,
        per_request=per_request,
        examples=examples,
        concurrency=concurrency,
        seed=seed,
    )

    def progress(report: SelfInstructReport) -> None:
        if not as_json:
            line = f"{report.requests} requests: {_counts(report.proposals + report.unusable)}"
            errors.print(line, soft_wrap=True)

    tasks = load_seeds(kind, seeds, data)
    guard = _guard(kind, evaluation)
    report = asyncio.run(run_self_instruct(writer, kind, tasks, guard, settings, out, progress))
    if as_json:
        emit(report)
    else:
        _show(report, "proposals", out)
    _exit(report)


def _exit(report: Mapping[str, Any]) -> None:
    # As in `collect`: stopping at a limit is not an error, but the result is incomplete.
    if report["stopped"] not in ("", "enough"):
        raise typer.Exit(3)


def _kind(name: str) -> TaskKind:
    if name == "database":
        from dataset_builders.instructions.database import DatabaseTasks

        return DatabaseTasks()
    if name == "os":
        from dataset_builders.instructions.operating_system import OperatingSystemTasks

        return OperatingSystemTasks()
    raise ConfigError(
        f"--env: found {name!r}, expected os or database: only for these can a model write tasks"
    )


def _writer(
    model: str,
    base_url: str | None,
    key_variable: str,
    temperature: float | None,
    concurrency: int,
    max_tokens: int | None,
    max_cost: float | None,
    prices: Path | None,
) -> Writer:
    from dataset_builders.endpoints.endpoint import Endpoint
    from dataset_builders.endpoints.pricing import PriceTable, read_prices
    from dataset_builders.endpoints.requests import Sampling
    from dataset_builders.instructions.run_io import Writer

    endpoint = Endpoint(model, base_url, key_variable)
    errors.print(f"asking {endpoint}", markup=False, highlight=False, soft_wrap=True)
    return Writer(
        endpoint,
        Sampling(temperature=temperature),
        read_prices(prices) if prices else PriceTable(),
        concurrency,
        max_tokens,
        max_cost,
    )


def _guard(kind: TaskKind, evaluation: list[str] | None) -> EvaluationGuard:
    from dataset_builders.contamination.plain_texts import TextReport, read_texts
    from dataset_builders.instructions.guard import EvaluationGuard

    texts = kind.evaluation()
    for source in evaluation or ():
        texts += [text for _, text in read_texts(source, TextReport(source))]
    if not texts:
        errors.print(
            f"{kind.name}: no evaluation tasks found to compare with; give them with --evaluation"
        )
    return EvaluationGuard(texts)


def _show(report: Mapping[str, Any], what: str, out: Path) -> None:
    console.print(f"{what}: {_counts(report[what])}", soft_wrap=True)
    if report.get("unusable"):
        console.print(f"unusable replies: {_counts(report['unusable'])}", soft_wrap=True)
    for reason, detail in report.get("first", {}).items():
        line = plain(" ".join(detail.split()))
        console.print(f"  {reason}, first: {line}", soft_wrap=True, highlight=False)
    if spent := report.get("spent"):
        cost = "unknown" if spent["cost"] is None else f"{spent['cost']:.4f}"
        console.print(f"{spent['requests']} requests, {spent['tokens']:,} tokens, cost {cost}")
    if report["stopped"]:
        console.print(f"stopped: {report['stopped']}")
    console.print(f"{out}", soft_wrap=True)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "none yet"
