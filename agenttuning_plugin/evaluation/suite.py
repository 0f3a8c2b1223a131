"""`agenttuning evaluate`: the panel on a model outside of training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin.evaluation.output_dir import (
    MODEL_FILE,
    CannotMeasureError,
    bind_output_dir,
    keep_traceback,
)
from dataset_builders.errors import AgentTuningError, ConfigError, EndpointError, EvaluatorError
from evaluators.evaluator import EvalResult, EvalTarget, Evaluator, Progress, Suite
from evaluators.models.endpoint import EndpointModel
from evaluators.results.evaluations import has_figures, replace_record, transcript_path
from evaluators.results.transcripts import Journal
from evaluators.runner import run_evaluator
from evaluators.tasks.registry import BENCHMARKS, SuiteSettings

_log = logging.getLogger(__name__)

Make = Callable[[], Evaluator]


class _OtherSettingsError(EvaluatorError):
    """A task was measured in this folder before, in another way."""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the panel before it is measured.

    Attributes:
        name: The evaluator's name, or the benchmark's.
        title: As the table shows it.
        suite: The paper's group.
        make: Makes the evaluator; raises why it cannot.
        scale: Factor from its main figure to the table's unit.
        configured: Whether the user gave it settings of its own, which may be wrong.
    """

    name: str
    title: str
    suite: Suite
    make: Make
    scale: float = 1.0
    configured: bool = False


@dataclass(slots=True)
class Panel:
    """Tasks, and what came of them.

    Attributes:
        tasks: In the table's order.
        results: By task name; one that was not measured holds its reason in `error`.
        broken: Tasks that failed in a way that should not be, by name.
    """

    tasks: list[Task]
    results: dict[str, EvalResult] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """What all tasks of a panel share.

    Attributes:
        subject: Gives the model when the first task needs it.
        limit: The first so many items of each task; all by default.
        out: Folder for results, transcripts and resuming; none keeps nothing.
        step: Optimizer step that the model is of, where it comes from a training run.
        heading: What tells one evaluation from another in a folder, such as the model.
        oracle: Whether environments' oracles play in place of the model.
    """

    subject: Callable[[], EvalTarget]
    limit: int | None = None
    out: Path | None = None
    step: int | None = None
    heading: Mapping[str, Any] = field(default_factory=dict)
    oracle: bool = False


class LazySubject:
    """The model, loaded when the first task needs it, and once.

    Args:
        make: Loads it.
        out: Folder for the traceback of an error that should not be.
    """

    def __init__(self, make: Callable[[], EvalTarget], out: Path | None = None) -> None:
        self._make, self._out = make, out
        self._made: EvalTarget | None = None

    def __call__(self) -> EvalTarget:
        """The model.

        Raises:
            CannotMeasureError: It cannot be had.
        """
        if self._made is None:
            try:
                self._made = self._make()
            except AgentTuningError as error:
                raise CannotMeasureError(str(error)) from error
            except Exception as error:
                # Whatever libraries raise over files that are not a model's.
                keep_traceback(self._out, "model")
                line = " ".join(str(error).split())[:300]
                raise CannotMeasureError(f"model: {type(error).__name__}: {line}") from error
        return self._made

    def close(self) -> None:
        """Close a server's connections."""
        if self._made is not None and isinstance(self._made.server, EndpointModel):
            self._made.server.close()


def suite_tasks(names: Sequence[str], settings: SuiteSettings) -> list[Task]:
    """Tasks of the paper's panel.

    Args:
        names: Suites and benchmarks.
        settings: The user's.

    Raises:
        ConfigError: A name is neither.
    """
    from evaluators.tasks.registry import select

    chosen = select(list(names))
    return [
        Task(
            *(b.name, b.title, b.suite, partial(b.evaluator, settings), b.scale),
            configured=b.name in settings.options,
        )
        for b in chosen
    ]


def run_panel(
    tasks: Sequence[Task], run: Run, progress: Callable[[str], Progress] | None = None
) -> Panel:
    """Measure a model on tasks; one that cannot be measured does not stop the others.

    Args:
        tasks: What is measured.
        run: What they share.
        progress: Makes what is told of a task's progress.

    Returns:
        A result for every task. `broken` lists those that failed for another reason than
        that something is missing here.

    Raises:
        CannotMeasureError: The model cannot be had.
    """
    panel = Panel(list(tasks))
    for task in tasks:
        try:
            result = _measure(task, run, progress)
        except CannotMeasureError:
            raise
        except _OtherSettingsError as error:
            panel.results[task.name] = _unmeasured(task, str(error))
            panel.broken.append(task.name)
            continue  # The results that are there stay.
        except (EndpointError, EvaluatorError) as error:
            result = _unmeasured(task, str(error))
            panel.broken.append(task.name)
        except AgentTuningError as error:
            result = _unmeasured(task, str(error))
            if task.configured and isinstance(error, ConfigError):
                panel.broken.append(task.name)
        except Exception as error:
            # The boundary to everything that evaluators are made of: the others go on.
            _log.debug("%s broke", task.name, exc_info=True)
            keep_traceback(run.out, task.name)
            result = _unmeasured(task, f"{type(error).__name__}: {error}")
            panel.broken.append(task.name)
        panel.results[task.name] = result
        if result.metrics == {} and result.records:
            panel.broken.append(task.name)
        if run.out is not None:
            _write(run.out, run.step or 0, result)
    return panel


def _write(out: Path, step: int, result: EvalResult) -> None:
    # What was measured before outlives a rerun that cannot: without its data, say.
    if result.metrics or not has_figures(out, step, result.evaluator):
        replace_record(out, step, result)


def _measure(task: Task, run: Run, progress: Callable[[str], Progress] | None) -> EvalResult:
    evaluator = task.make()
    if run.oracle and not getattr(evaluator, "plays_oracle", False):
        raise ConfigError(f"{task.name}: has no oracle to play it")
    subject = EvalTarget(None, None) if run.oracle else run.subject()
    with _journal(task, evaluator, subject, run) as journal:
        try:
            return run_evaluator(
                evaluator,
                subject,
                limit=run.limit,
                journal=journal,
                on_progress=progress(task.name) if progress else None,
            )
        except EndpointError as error:
            if journal is None:
                raise
            raise EndpointError(
                f"{error} (finished items are kept; run the same command to resume)"
            ) from error


@contextmanager
def _journal(
    task: Task, evaluator: Evaluator, subject: EvalTarget, run: Run
) -> Iterator[Journal | None]:
    if run.out is None:
        yield None
        return
    heading = dict(run.heading)
    if isinstance(subject.server, EndpointModel):
        # By its name: a server that was started again may have another address.
        heading["model"] = subject.server.name
    path = transcript_path(run.out, task.name, run.step)
    bind_output_dir(path.with_name(MODEL_FILE), heading)
    try:
        journal = Journal(path, {"evaluator": task.name, **heading, **evaluator.about()})
    except ConfigError as error:
        raise _OtherSettingsError(str(error)) from error
    try:
        yield journal
    finally:
        journal.close()


def _unmeasured(task: Task, reason: str) -> EvalResult:
    line = " ".join(reason.split())
    return EvalResult(task.name, {}, 0, 0.0, suite=task.suite, error=line)


def overalls(panel: Panel) -> dict[str, float]:
    """The paper's Overall of every suite that was measured whole, by suite."""
    from evaluators.tasks.overall import overall

    scales = {benchmark.name: benchmark.scale for benchmark in BENCHMARKS}
    scores = {
        name: result.metrics[result.primary].value * scales[name]
        for name, result in panel.results.items()
        if result.primary in result.metrics and name in scales
    }
    found = {suite: overall(scores, suite) for suite in ("held-in", "held-out", "general")}
    return {suite: value for suite, value in found.items() if value is not None}
