"""Measures a model on suites and tasks: the command `evaluate`, and a run's side process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from agenttuning_plugin.console import console, errors, plain, writing
from agenttuning_plugin.evaluation.model_loading import is_url, open_subject
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
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import load_environment
from dataset_builders.environments.references import is_reference
from dataset_builders.errors import ConfigError
from dataset_builders.settings import settings
from evaluators.evaluator import EvalTarget, Evaluator
from evaluators.tasks.registry import SuiteSettings

CONVERSATIONS = ("replay", "loss")
"""Tasks besides those of the suites, which read conversations with the model."""


@settings
class EvaluationRun:
    """What is measured of which model."""

    model: str = Field(default="", description="Folder, hub id or address; none with an oracle.")
    suites: tuple[str, ...] = Field(
        default=("held-in",), min_length=1, description="Suites and tasks."
    )
    tasks: SuiteSettings = Field(
        default_factory=SuiteSettings, description="Settings of the suites' tasks."
    )
    adapter: str | None = Field(default=None, description="Adapter to put on the model.")
    limit: int | None = Field(
        default=None, ge=1, description="Items of each task, the first ones; all if left out."
    )
    out: str | None = Field(default=None, description="Folder for results and transcripts.")
    step: int | None = Field(default=None, ge=0, description="Training step that the model is of.")
    model_name: str | None = Field(default=None, description="Name of the model at an address.")
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds the server's key."
    )
    temperature: float | None = Field(
        default=None, ge=0, description="Temperature at a server, in place of the tasks' own."
    )
    token_field: str = Field(
        default="max_tokens", description="Name of a request's field for the token limit."
    )
    request: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of a server's requests."
    )
    chat_template: str | None = Field(
        default=None, description="Chat template of this package, in place of the tokenizer's."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Variables of the chat template."
    )
    end_of_turn: tuple[str, ...] = Field(
        default=(), description="Tokens besides eos that end a turn."
    )
    general: str | None = Field(default=None, description="Chat that the loss is measured on.")
    num_conversations: int = Field(default=64, ge=1, description="Number of its conversations.")
    max_length: int = Field(
        default=4096, ge=1, description="Longest conversation in tokens, of loss and replay."
    )
    replay_data: str | None = Field(default=None, description="Trajectories that are replayed.")

    @property
    def sampling(self) -> Sampling:
        """How a server is to sample; it renders the chat template with our variables.

        Raises:
            ConfigError: `token_field` is another one.
        """
        fields = dict(self.request)
        if self.chat_template_kwargs and is_url(self.model):
            given = fields.get("chat_template_kwargs") or {}
            fields["chat_template_kwargs"] = {**given, **self.chat_template_kwargs}
        return Sampling(self.temperature, token_field=self.token_field, extra=fields)

    @property
    def heading(self) -> dict[str, Any]:
        """What tells these results from another evaluation's in one folder."""
        variables = self.chat_template_kwargs
        return {
            "model": "oracle" if self.tasks.oracle else self.model_name or resolved(self.model),
            "weights": weights_digest(self.model),
            "adapter": weights_digest(self.adapter or ""),
            "chat_template": self.chat_template or "",
            **({"chat_template_kwargs": variables} if variables else {}),
            "end_of_turn": list(self.end_of_turn),
            "max_new_tokens": self.tasks.max_new_tokens,
            **sampling_heading(self.sampling),
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
    shared = Run(subject, run.limit, out, run.step, run.heading, run.tasks.oracle)
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
    show_panel(panel, run.limit).print(console, title=str(run.heading["model"]))
    return report_failure(panel)


def report_failure(panel: Panel) -> bool:
    """Print what was not measured as it should be; whether there is nothing of the kind."""
    failed = f"not measured as specified: {', '.join(panel.broken)}" if panel.broken else ""
    if not any(result.metrics for result in panel.results.values()):
        failed = failed or "nothing was measured"
    if failed:
        errors.print(plain(failed))
    return not failed
