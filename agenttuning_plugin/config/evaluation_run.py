"""Settings of an evaluation outside of training: the command `evaluate`, and a side process."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dataset_builders.endpoints.requests import Sampling
from dataset_builders.settings import settings
from evaluators.tasks.registry import SuiteSettings


def is_url(place: str) -> bool:
    """Whether a model is given as a server's URL."""
    return place.startswith(("http://", "https://"))


@settings
class EvaluationRun:
    """What is measured of which model."""

    model: str = Field(
        default="",
        description="Folder or hub id of a model or adapter, or URL of a server (…/v1).",
    )
    suites: tuple[str, ...] = Field(
        default=("held-in",), min_length=1, description="Suites and tasks."
    )
    tasks: SuiteSettings = Field(
        default_factory=SuiteSettings, description="Settings of the suites' tasks."
    )
    adapter: str | None = Field(default=None, description="LoRA adapter to apply to the model.")
    limit: int | None = Field(
        default=None, ge=1, description="Maximum items per task, the same ones every time."
    )
    out: str | None = Field(
        default=None,
        description="Output folder for results and transcripts; an existing evaluation is resumed.",
    )
    step: int | None = Field(default=None, ge=0, description="Training step of the model.")
    general: str | None = Field(
        default=None, description="Chat data for the suite loss: file, folder or hub id."
    )
    num_conversations: int = Field(
        default=64,
        ge=1,
        description="Number of conversations for the suite loss, selected like `holdout` in a "
        "recipe.",
    )
    max_length: int = Field(
        default=4096,
        ge=1,
        description="Maximum tokens of a conversation for loss and replay, as in the recipe.",
    )
    replay_data: str | None = Field(
        default=None,
        description="Expert trajectories for the suite replay: file, folder or hub id.",
    )
    model_name: str | None = Field(
        default=None, description="Model name on the server. [default: its only model]"
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the server's API key."
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        description="Sampling temperature on a server; replaces the tasks' own, for servers that "
        "reject 0.",
    )
    token_field: str = Field(
        default="max_tokens",
        description="Name of the token limit on a server: max_tokens or max_completion_tokens.",
    )
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="Extra request field for a server, as name=JSON; repeatable.",
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template of this package, such as llama-2, instead of the tokenizer's.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Chat template variable as name=JSON, such as enable_thinking=false; "
        "repeatable. Sent to a server with every request.",
    )
    end_of_turn: tuple[str, ...] = Field(
        default=(),
        description="Additional end-of-turn token besides eos, as eot_tokens in a recipe; "
        "repeatable.",
    )

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
