"""The `agenttuning:` section of an Axolotl recipe; needs nothing but pydantic.

Axolotl drops keys that it does not know in silence. Everything of ours therefore lives
in one nested section that refuses unknown keys, and the section itself is required.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dataset_builders.sources import Format, SourceSpec


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SourceConfig(_Closed):
    """Where conversations come from."""

    path: str = Field(
        min_length=1, description="File, folder or hub dataset id. `~` is the home folder."
    )
    format: Format | None = Field(
        default=None, description="Format of the records; told from the first ones if left out."
    )
    splits: list[str] = Field(
        default_factory=list, description="Splits to read, such as `[db, os]`; all if left out."
    )
    data_files: list[str] = Field(
        default_factory=list, description="Glob patterns inside a folder or hub dataset."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub dataset."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Conversations to take from the start; all if left out."
    )
    reconstruct_loss: bool = Field(
        default=False,
        description="Put back the `loss` flags that a copy of AgentInstruct lost.",
    )
    calls_as_text: bool = Field(
        default=False,
        description="Spell tool calls out as text, for chat templates that know no tools.",
    )

    def spec(self) -> SourceSpec:
        """The data layer's description of this source."""
        return SourceSpec(
            path=self.path,
            format=self.format,
            splits=tuple(self.splits),
            data_files=tuple(self.data_files),
            revision=self.revision,
            limit=self.limit,
            reconstruct_loss=self.reconstruct_loss,
            calls_as_text=self.calls_as_text,
        )


class _Scheduled(_Closed):
    every: int | None = Field(
        default=None, ge=1, description="Optimizer steps between runs; none in between if left out."
    )
    at_start: bool = Field(default=True, description="Run before the first step, as the base.")
    at_end: bool = Field(default=True, description="Run after the last step.")


class AgentTaskConfig(_Scheduled):
    """Plays tasks of an environment with the model in training."""

    type: Literal["agent_task"]
    environment: str = Field(default="database", description="Name of the environment.")
    split: str = Field(default="test", description="Split whose tasks are played.")
    num_tasks: int = Field(
        default=32, ge=1, description="Number of tasks, the first ones of the split."
    )
    batch_size: int = Field(default=16, ge=1, description="Episodes played at once.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest turn in tokens; the benchmark's if left out."
    )


class GeneralLossConfig(_Scheduled):
    """Measures the loss on the general conversations held out of training."""

    type: Literal["general_loss"]


EvaluatorConfig = Annotated[AgentTaskConfig | GeneralLossConfig, Field(discriminator="type")]


class AgentTuningSection(_Closed):
    """Settings of the plugin."""

    eta: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Probability that an example is agent data (paper, section 2.3).",
    )
    agent: list[SourceConfig] = Field(
        default_factory=list, description="Agent data: one source or a list of them."
    )
    general: list[SourceConfig] = Field(
        default_factory=list, description="General chat: one source or a list of them."
    )
    num_examples: int | None = Field(
        default=None,
        ge=1,
        description="Examples in the mix; by default as many as `max_steps` takes.",
    )
    mix_seed: int | None = Field(
        default=None, description="Seed of the order; the recipe's `seed` if left out."
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template of this package, such as `llama-2`; if left out, Axolotl's "
        "`chat_template` or the tokenizer's own.",
    )
    holdout: int = Field(
        default=64,
        ge=0,
        description="General conversations kept out of training, to measure the loss on.",
    )
    evaluators: list[EvaluatorConfig] = Field(
        default_factory=list, description="What is measured during training."
    )

    @field_validator("agent", "general", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"path": value}]
        if isinstance(value, dict):
            return [value]
        if isinstance(value, list):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @model_validator(mode="after")
    def _sources_fit_eta(self) -> AgentTuningSection:
        for name, share in (("agent", self.eta), ("general", 1 - self.eta)):
            if share > 0 and not getattr(self, name):
                raise ValueError(f"eta is {self.eta}, but {name} names no source")
        measures_loss = any(e.type == "general_loss" for e in self.evaluators)
        if measures_loss and not (self.general and self.holdout):
            raise ValueError(
                "evaluators: general_loss needs a general source and a holdout of at least 1"
            )
        return self


class AgentTuningArgs(BaseModel):
    """What the plugin adds to Axolotl's settings: one required section."""

    agenttuning: AgentTuningSection = Field(description="Settings of the AgentTuning plugin.")
