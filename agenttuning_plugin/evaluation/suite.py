"""`agenttuning evaluate`: evaluate a model on a suite of tasks, outside of training."""

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
from evaluators.tasks.registry import SuiteSettings

_log = logging.getLogger(__name__)

Make = Callable[[], Evaluator]


class _OtherSettingsError(EvaluatorError):
    """A task was measured in this folder before, with other settings."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task before it is measured.

    Attributes:
        name: The evaluator's name, or the benchmark's.
        title: Title in the table.
        suite: Group in the paper.
        make: Creates the evaluator; raises if that is impossible.
        scale: Factor from its main figure to the table's unit.
        configured: Whether the user gave it options, which may be invalid.
    """

    name: str
    title: str
    suite: Suite
    make: Make
    scale: float = 1.0
    configured: bool = False

    def unmeasured(self, reason: str) -> EvalResult:
        """The result of a task that was not measured."""
        return EvalResult.unmeasured(self.name, reason, suite=self.suite)


@dataclass(slots=True)
class Panel:
    """Tasks and their results.

    Attributes:
        tasks: In the table's order.
        results: By task name; one that was not measured holds its reason in `error`.
        broken: Tasks that failed unexpectedly, by name.
    """

    tasks: list[Task]
    results: dict[str, EvalResult] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """Settings shared by all tasks of an evaluation.

    Attributes:
        subject: Loads the model when the first task needs it.
        limit: Maximum items per task, the first ones; all by default.
        out: Folder for results, transcripts and resuming; None stores nothing.
        step: Optimizer step of the model, if it comes from a training run.
        heading: Identity of the evaluation in its folder, such as the model.
        oracle: Whether environments' oracles play instead of the model.
    """

    subject: Callable[[], EvalTarget]
    limit: int | None = None
    out: Path | None = None
    step: int | None = None
    heading: Mapping[str, Any] = field(default_factory=dict)
    oracle: bool = False


class LazySubject:
    """The model, loaded once, when the first task needs it.

    Args:
        make: Loads it.
        out: Folder for the traceback of an unexpected error.
    """

    def __init__(self, make: Callable[[], EvalTarget], out: Path | None = None) -> None:
        self._make, self._out = make, out
        self._made: EvalTarget | None = None

    def __call__(self) -> EvalTarget:
        """Return the model.

        Raises:
            CannotMeasureError: It cannot be loaded.
        """
        if self._made is None:
            try:
                self._made = self._make()
            except AgentTuningError as error:
                raise CannotMeasureError(str(error)) from error
            except Exception as error:
                # Whatever libraries raise on files that are not a model.
                keep_traceback(self._out, "model")
                line = " ".join(str(error).split())[:300]
                raise CannotMeasureError(f"model: {type(error).__name__}: {line}") from error
        return self._made

    def close(self) -> None:
        """Close a server's connections."""
        if self._made is not None and isinstance(self._made.server, EndpointModel):
            self._made.server.close()


def suite_tasks(names: Sequence[str], settings: SuiteSettings) -> list[Task]:
    """Return the tasks of the paper's suites.

    Args:
        names: Suites and benchmarks.
        settings: The user's settings.

    Raises:
        ConfigError: A name is neither.
    """
    from evaluators.tasks.registry import OWN, select

    chosen = select(list(names))
    return [
        Task(
            *(b.key, b.title, b.suite, partial(b.evaluator, settings), b.scale),
            configured=b.name in settings.options or b.suite == OWN,
        )
        for b in chosen
    ]


def run_panel(
    tasks: Sequence[Task], run: Run, progress: Callable[[str], Progress] | None = None
) -> Panel:
    """Measure a model on tasks; one that fails does not stop the others.

    Args:
        tasks: The tasks.
        run: Their shared settings.
        progress: Creates a task's progress callback.

    Returns:
        A result for every task. `broken` lists those that failed for another reason than a missing
        requirement.

    Raises:
        CannotMeasureError: The model cannot be loaded.
    """
    panel = Panel(list(tasks))
    for task in tasks:
        try:
            result = _measure(task, run, progress)
        except CannotMeasureError:
            raise
        except _OtherSettingsError as error:
            panel.results[task.name] = EvalResult.unmeasured(
                task.name, str(error), suite=task.suite
            )
            panel.broken.append(task.name)
            continue  # Existing results are kept.
        except (EndpointError, EvaluatorError) as error:
            result = task.unmeasured(str(error))
            panel.broken.append(task.name)
        except AgentTuningError as error:
            result = task.unmeasured(str(error))
            if task.configured and isinstance(error, ConfigError):
                panel.broken.append(task.name)
        except Exception as error:
            # Boundary to arbitrary evaluator code: the others continue.
            _log.debug("%s broke", task.name, exc_info=True)
            keep_traceback(run.out, task.name)
            result = EvalResult.unmeasured(
                task.name, f"{type(error).__name__}: {error}", suite=task.suite
            )
            panel.broken.append(task.name)
        panel.results[task.name] = result
        if result.metrics == {} and result.records:
            panel.broken.append(task.name)
        if run.out is not None:
            _write(run.out, run.step or 0, result)
    return panel


def _write(out: Path, step: int, result: EvalResult) -> None:
    # Earlier results are kept if a rerun fails, for example without its data.
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
        # By its name: a restarted server may have another address.
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
