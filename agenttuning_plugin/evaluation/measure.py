"""Measures a model on suites and tasks: the command `evaluate`, and a run's side process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.evaluation_run import EvaluationRun
from agenttuning_plugin.console import console, errors, plain, writing
from agenttuning_plugin.evaluation.model_loading import open_subject
from agenttuning_plugin.evaluation.output_dir import resolved, weights_digest
from agenttuning_plugin.evaluation.progress import with_bars
from agenttuning_plugin.evaluation.served_sampling import configured, sampling_heading
from agenttuning_plugin.evaluation.suite import (
    LazySubject,
    Panel,
    Run,
    Task,
    run_panel,
    suite_tasks,
)
from agenttuning_plugin.evaluation.table import show_panel
from dataset_builders.environments import load_environment
from dataset_builders.environments.references import is_reference
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget, Evaluator

CONVERSATIONS = ("replay", "loss")
"""Tasks besides those of the suites, which read conversations with the model."""


def heading_of(run: EvaluationRun) -> dict[str, Any]:
    """Return what tells a run's results from another evaluation's in one folder."""
    variables = run.chat_template_kwargs
    return {
        "model": "oracle" if run.tasks.oracle else run.model_name or resolved(run.model),
        "weights": weights_digest(run.model),
        "adapter": weights_digest(run.adapter or ""),
        "chat_template": run.chat_template or "",
        **({"chat_template_kwargs": variables} if variables else {}),
        "end_of_turn": list(run.end_of_turn),
        "max_new_tokens": run.tasks.max_new_tokens,
        **sampling_heading(run.sampling),
    }


def measure(run: EvaluationRun) -> Panel:
    """Measure a model; progress goes to the terminal or log.

    Raises:
        AgentTuningError: The model cannot be loaded, or a setting is wrong.
    """
    sampling = run.sampling
    out = None if run.out is None else Path(run.out)

    def load() -> EvalTarget:
        subject = open_subject(
            run.model,
            run.adapter,
            chat_template=run.chat_template,
            chat_template_kwargs=run.chat_template_kwargs,
            end_of_turn=run.end_of_turn,
            model_name=run.model_name,
            api_key_env=run.api_key_env,
            max_concurrency=run.tasks.batch_size,
        )
        return configured(subject, sampling)

    subject = LazySubject(load, out)
    tasks = [*suite_tasks([n for n in run.suites if n not in CONVERSATIONS], run.tasks)]
    if "replay" in run.suites:
        tasks.append(Task("replay", "Replay", "replay", partial(_replay, run, subject)))
    if "loss" in run.suites or run.general is not None:
        tasks.append(Task("general", "Loss on chat", "general", partial(_loss, run, subject)))
    shared = Run(subject, run.limit, out, run.step, heading_of(run), run.tasks.oracle)
    try:
        with writing(out):
            panel: Panel = with_bars(lambda bars: run_panel(tasks, shared, bars))
    finally:
        subject.close()
    return panel


def _loss(run: EvaluationRun, subject: LazySubject) -> Evaluator:
    from agenttuning_plugin.evaluation.conversations import loss_evaluator

    if run.general is None:
        raise ConfigError("loss: `general` is missing, expected chat data")
    return loss_evaluator(run.general, subject(), run.num_conversations, run.max_length)


def _replay(run: EvaluationRun, subject: LazySubject) -> Evaluator:
    from agenttuning_plugin.evaluation.conversations import replay_evaluator

    if run.replay_data is None:
        raise ConfigError("replay: `replay_data` is missing, expected trajectories")
    own = [load_environment(name) for name in run.suites if is_reference(name)]
    return replay_evaluator(run.replay_data, subject(), run.max_length, own)


def report(panel: Panel, run: EvaluationRun) -> bool:
    """Print the table, and what was not measured as it should be.

    Returns:
        Whether all went well.
    """
    show_panel(panel, run.limit).print(console, title=str(heading_of(run)["model"]))
    return report_failure(panel)


def report_failure(panel: Panel) -> bool:
    """Print what was not measured as it should be; whether there is nothing of the kind."""
    failed = f"not measured as specified: {', '.join(panel.broken)}" if panel.broken else ""
    if not any(result.metrics for result in panel.results.values()):
        failed = failed or "nothing was measured"
    if failed:
        errors.print(plain(failed))
    return not failed
