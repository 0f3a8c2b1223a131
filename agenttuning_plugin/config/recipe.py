"""The `agenttuning:` section of an Axolotl recipe.

Axolotl silently drops unknown keys. All our settings are therefore in one nested section that
rejects unknown keys, and the section itself is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field, field_serializer, field_validator, model_validator

from agenttuning_plugin.config.base import StrictModel
from agenttuning_plugin.config.endpoint import EndpointConfig
from agenttuning_plugin.config.evaluation import EvaluatorConfig
from dataset_builders.mixing.eta_schedule import Mode
from dataset_builders.mixing.pools import GPT4_SHARE
from dataset_builders.mixing.unit_conversion import Unit
from dataset_builders.sources.made import kind_of
from dataset_builders.sources.spec import SourceSpec
from evaluators.training.schedule import EvaluationPolicy


class EtaStage(StrictModel):
    """A share of agent data that applies from an optimizer step on.

    The order of a mix counts positions instead: see `QuotaStage`.
    """

    from_step: int = Field(
        ge=1,
        description="First optimizer step of the stage, counted from 0; with sample packing "
        "the change is blurred by a window of examples to both sides.",
    )
    eta: float = Field(ge=0, le=1, description="Share of agent data from that step on.")


class AgentTuningSection(StrictModel):
    """Settings of the plugin."""

    eta: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Probability that an example is agent data (paper, section 2.3).",
    )
    eta_stages: list[EtaStage] = Field(
        default_factory=list,
        description="Shares that apply from later steps on; before the first of them, `eta` "
        "applies.",
    )
    eta_unit: Unit = Field(
        default="example",
        description="What eta counts: `example` (the paper), `token` or `trained_token`, the "
        "share of the loss signal.",
    )
    sampling: Mode = Field(
        default="stratified",
        description="`stratified`: each global batch has the share; `iid`: the paper's "
        "independent draws.",
    )
    loss_normalization: Literal["tokens", "examples"] = Field(
        default="tokens",
        description="Normalisation of a step's loss. `tokens`: mean over the trained tokens of "
        "the global batch; `examples`: mean over examples of each example's mean, so that eta is "
        "the "
        "share of the loss (needs `micro_batch_size: 1` without packing).",
    )
    log_loss_by_source: bool = Field(
        default=True,
        description="Log the training loss of agent and general data, of each agent task and of "
        "each source beside the total, as `loss/agent/os`.",
    )
    task_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of each task within the agent data, such as `{os: 1, db: 2}`.",
    )
    gpt4_share: float | None = Field(
        default=GPT4_SHARE,
        gt=0,
        lt=1,
        description="Share of GPT-4's conversations within the general data, if the author models "
        "are known (paper: 1 to 4); `~`: no weighting.",
    )
    agent: list[SourceSpec] = Field(
        default_factory=list, description="Agent data: one source or a list of them."
    )
    general: list[SourceSpec] = Field(
        default_factory=list, description="General chat: one source or a list of them."
    )
    num_examples: int | None = Field(
        default=None,
        ge=1,
        description="Examples in the mix; default: as many as `max_steps` needs.",
    )
    general_passes: float | None = Field(
        default=None,
        gt=0,
        description="Run length in passes over the general data, instead of `max_steps`.",
    )
    mix_seed: int | None = Field(
        default=None, description="Seed of the order; default: the recipe's `seed`."
    )
    chat_template: str | None = Field(
        default=None,
        description="Chat template of this package, such as `llama-2`; default: Axolotl's "
        "`chat_template` or the tokenizer's own.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Variables of the chat template, such as `{enable_thinking: false}`, for "
        "training, evaluation and the saved tokenizer.",
    )
    holdout: int = Field(
        default=64,
        ge=0,
        description="General conversations held out of training, to measure the loss on.",
    )
    agent_holdout: int = Field(
        default=0,
        ge=0,
        description="Agent conversations of each task held out of training, to measure the loss "
        "of `agent_loss` on.",
    )
    processes: int = Field(
        default=1, ge=1, description="Number of encoding processes; the rows do not depend on it."
    )
    evaluators: list[EvaluatorConfig] = Field(
        default_factory=list, description="Evaluators that run during training."
    )
    evaluation: EvaluationPolicy = Field(
        default_factory=EvaluationPolicy, description="Settings shared by all evaluators."
    )
    endpoint: EndpointConfig | None = Field(
        default=None, description="Evaluation on an inference server while training continues."
    )

    @field_validator("agent", "general", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [{"path": value}]
        if isinstance(value, dict | SourceSpec):
            return [value]
        if isinstance(value, list):
            return [{"path": item} if isinstance(item, str) else item for item in value]
        return value

    @model_validator(mode="after")
    def _general_chat_with_tools(self) -> AgentTuningSection:
        """Let `vary.no_tool_share` take its chats from the general sources by default."""
        paths = tuple(spec.path for spec in self.general if not kind_of(spec))
        self.agent = [
            replace(spec, vary=replace(spec.vary, no_tool_from=paths))
            if spec.vary is not None and spec.vary.no_tool_share and not spec.vary.no_tool_from
            else spec
            for spec in self.agent
        ]
        return self

    @model_validator(mode="after")
    def _sources_fit_eta(self) -> AgentTuningSection:
        shares = [self.eta, *(stage.eta for stage in self.eta_stages)]
        if max(shares) > 0 and not self.agent:
            raise ValueError(f"eta is {max(shares)}, but agent names no source")
        if min(shares) < 1 and not self.general:
            raise ValueError(f"eta is {min(shares)}, but general names no source")
        starts = [stage.from_step for stage in self.eta_stages]
        if starts != sorted(set(starts)):
            raise ValueError(f"eta_stages: found from_step {starts}, expected ascending steps")
        if self.general_passes is not None and self.num_examples is not None:
            raise ValueError("general_passes: found with num_examples, expected one of the two")
        if self.general_passes is not None and self.eta_unit != "example":
            raise ValueError(
                f"general_passes: found with eta_unit {self.eta_unit}, expected `example`, or "
                "max_steps instead"
            )
        self.check_evaluation({})
        if not (self.agent and self.agent_holdout) and any(
            e.type == "agent_loss" for e in self.evaluators
        ):
            raise ValueError(
                "evaluators: agent_loss needs an agent source and an agent_holdout of at least 1"
            )
        for each in self.evaluators:
            measures_holdout = getattr(each, "measures_holdout", False)
            if measures_holdout and not (self.general and self.holdout):
                raise ValueError(
                    f"evaluators: {each.type} needs a general source and a holdout of at least 1, "
                    "or chat of its own as data"
                )
        return self

    def sides_read(self) -> list[str]:
        """Return the sides, "agent" and "general", that a run reads; see `resolve_sources`."""
        shares = [self.eta, *(stage.eta for stage in self.eta_stages)]
        needed = {"agent": max(shares) > 0, "general": min(shares) < 1 or self.holdout > 0}
        return [side for side, is_needed in needed.items() if is_needed and getattr(self, side)]

    def check_evaluation(self, primary: Mapping[str, str]) -> None:
        """Check `evaluation` against the evaluators.

        Args:
            primary: Main figure by evaluator, as far as it is known.

        Raises:
            ConfigError: See `EvaluationPolicy.check`.
        """
        self.evaluation.check(
            [each.key for each in self.evaluators],
            [each.key for each in self.evaluators if not each.at_start],
            primary,
        )


class AgentTuningArgs(BaseModel):
    """The plugin's extension of Axolotl's settings: one section.

    Not required here: otherwise recipes without the plugin would be rejected if an entry point
    loads it; a recipe that lists the plugin without the section is rejected by `check_recipe`.
    """

    agenttuning: AgentTuningSection | None = Field(
        default=None, description="Settings of the AgentTuning plugin."
    )

    @field_serializer("agenttuning")
    def _whole(self, section: AgentTuningSection | None) -> dict[str, Any] | None:
        """With null where the recipe says so, though Axolotl drops what is null from its dump."""
        return None if section is None else section.model_dump(mode="json")
