"""What names a source of conversations, and which of them to take: a source of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator, model_validator
from pydantic_core import ArgsKwargs

from dataset_builders.cleaning.agent_faults import Step
from dataset_builders.cleaning.steps import Cleaning, validate_steps
from dataset_builders.row_options import RowSplit
from dataset_builders.settings import fields_of, settings
from dataset_builders.sources.made import Refusals, SelfReplay, refusals_of, with_placeholder
from dataset_builders.sources.recovery_settings import RecoverSettings
from dataset_builders.variation.settings import VarySettings

Format = Literal[
    "agentinstruct",
    "sharegpt",
    "messages",
    "prompt_completion",
    "alpaca",
    "adp",
    "atif",
    "verifiers",
    "harbor",
    "openai_log",
]
"""Name of a format."""


def _unknown(model: Any) -> Any:
    return "" if model is None else model


@settings
class SourceSpec:
    """A source of conversations and which of them to take."""

    path: str = Field(
        min_length=1, description="File, folder or hub dataset id. `~` is the home folder."
    )
    format: Format | None = Field(
        default=None, description="Format of the records; default: detected from the first ones."
    )
    splits: tuple[str, ...] = Field(
        default=(),
        description="Splits to read, such as `[db, os]`; default: all except evaluation splits, "
        "such as `test`.",
    )
    data_files: tuple[str, ...] = Field(
        default=(), description="Glob patterns inside a folder or hub dataset."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub dataset."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum conversations, from the start; default: all."
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Weight within agent or general data, relative to the other sources; default: "
        "proportional to the number of rows.",
    )
    min_reward: float | None = Field(
        default=None,
        description="Minimum reward: rows below it, and rows without a reward, are dropped and "
        "counted; default: all.",
    )
    reconstruct_loss: bool = Field(
        default=False,
        description="Restore the `loss` flags that a copy of AgentInstruct lost.",
    )
    calls_as_text: bool = Field(
        default=False,
        description="Convert tool calls to text, for chat templates without tool support.",
    )
    clean: Annotated[Cleaning | tuple[Step, ...] | None, WrapValidator(validate_steps)] = Field(
        default=None,
        description="For `sharegpt` the cleaning steps by name, default: all, `false`: none; for "
        "`agentinstruct` a list of `strip_terminal_sequences`, `remove_earlier_task` and "
        "`drop_foreign_thoughts`, default: none.",
    )
    model: Annotated[str, BeforeValidator(_unknown)] = Field(
        default="",
        description="Author model of conversations whose record names none, such as `gpt-4`.",
    )
    train_on: str = Field(
        default="all",
        description="Trained turns that the loss covers: `all`, `last`, `calls` (turns with tool "
        "calls), `final` (turns without), `state_changing` (turns of a collection that changed the "
        "world), `judge` (turns that a model finds critical), or a function, `module:function` or "
        "`./file.py:function`, from a conversation to indices of messages.",
    )
    judge_model: str | None = Field(
        default=None, description="Model that names the critical turns of `train_on: judge`."
    )
    judge_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of the judge; default: OPENAI_BASE_URL, or OpenAI's.",
    )
    judge_api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the judge's API key."
    )
    judge_share: float = Field(
        default=0.3, gt=0, le=1, description="Share of the turns that the judge is asked for."
    )
    failed: Literal["drop", "marked"] = Field(
        default="drop",
        description="Failed episodes of a collection's folder: `drop`; `marked`: rows whose prompt "
        "says that they fail, and that of solved ones that they succeed.",
    )
    failed_marker: str = Field(
        default="The result must be incorrect.",
        min_length=1,
        description="Text that `failed: marked` appends to the prompt of a failed episode.",
    )
    success_marker: str = Field(
        default="The result must be correct.",
        min_length=1,
        description="Text that `failed: marked` appends to the prompt of a solved task; the "
        "`prompt_suffix` of evaluation and inference.",
    )
    failed_limit: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Maximum share of failed episodes in the conversations of `failed: marked`.",
    )
    reasoning: Literal["train", "mask", "drop"] = Field(
        default="train",
        description="Reasoning of the model's turns: `train`; `mask`: context without loss; "
        "`drop`: removed.",
    )
    rows: RowSplit = Field(
        default="auto",
        description="Rows of a conversation: `conversation`: one; `per_turn`: one for each "
        "trained turn; `auto`: one, or as few as show each trained turn after its prompt, with its "
        "reasoning, where the chat template renders past turns differently.",
    )
    keep_last_turns: int | None = Field(
        default=None,
        ge=1,
        description="Assistant turns before a trained turn that its row keeps after the opening; "
        "default: all.",
    )
    self_replay: SelfReplay | None = Field(
        default=None,
        description="Instead of `path`: the base model's own answers to the prompts of a chat "
        "source, made before training.",
    )
    refusals: Annotated[Refusals | None, BeforeValidator(refusals_of)] = Field(
        default=None,
        description="Instead of `path`: refusals of harmful requests, `own` (shipped) or a set.",
    )
    recover: RecoverSettings | None = Field(
        default=None,
        description="The failed episodes of the collection at `path`, continued in their "
        "environment until the task is solved; made before training.",
    )
    vary: VarySettings | None = Field(
        default=None,
        description="Variants of agent conversations with other tool names, wordings and orders "
        "of tools, and chats that need no tool.",
    )

    @model_validator(mode="before")
    @classmethod
    def _path_or_recipe(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return with_placeholder(values)
        if isinstance(values, ArgsKwargs) and not values.args:
            return ArgsKwargs((), with_placeholder(values.kwargs or {}))
        return values

    @property
    def label(self) -> str:
        """Name of the source in reports and messages."""
        return f"{self.format or 'unknown'}:{self.path}"


BEFORE_READING = {
    name: fields_of(SourceSpec)[name].default
    for name in (
        *("judge_model", "judge_base_url", "judge_api_key_env", "judge_share"),
        *("failed", "failed_marker", "success_marker", "failed_limit"),
    )
}
"""Settings of what is prepared before a source is read, and their defaults."""

READ_AS: dict[str, Any] = {
    **BEFORE_READING,
    **{
        name: fields_of(SourceSpec)[name].default
        for name in (
            *("splits", "data_files", "revision", "limit", "min_reward"),
            *("reconstruct_loss", "clean", "model"),
        )
    },
    "format": "messages",
}
"""Settings that a prepared source is read with: the others were applied when it was prepared."""
