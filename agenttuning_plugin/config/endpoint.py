"""The section `endpoint:` of `agenttuning:`: evaluation through a server during training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evaluators.tasks.registry import BENCHMARKS, SUITES, check_options


class EndpointConfig(BaseModel):
    """Evaluates through a server that is given the adapter, while training goes on."""

    model_config = ConfigDict(extra="forbid")

    base_url: str = Field(
        pattern=r"^https?://",
        description="Address of the server, such as `http://127.0.0.1:8000/v1`; it sees the "
        "output folder under the same path.",
    )
    lora_route: Literal["vllm"] = Field(
        default="vllm",
        description="How the server is given an adapter: `vllm`, by `POST /load_lora_adapter`.",
    )
    every: int | None = Field(
        default=None, ge=1, description="Optimizer steps between runs; none in between if left out."
    )
    at_start: bool = Field(default=True, description="Run before the first step, as the base.")
    at_end: bool = Field(default=True, description="Run after the last step.")
    suites: list[str] = Field(
        default=["held-in"],
        min_length=1,
        description="Suites and tasks, as `agenttuning evaluate --suite` takes them.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Items of each task, the first ones; all if left out."
    )
    data: str | None = Field(
        default=None, description="Folder with a folder of data for each task."
    )
    prompt: Literal["own", "published"] = Field(
        default="own", description="Words around the held-in environments."
    )
    agentinstruct: str | None = Field(
        default=None, description="AgentInstruct copy that holds the published words."
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Further settings by task, such as `{database: {backend: mariadb}}`.",
    )
    judge_model: str | None = Field(
        default=None, description="Model that rates answers (MT-Bench, ReWOO)."
    )
    judge_base_url: str | None = Field(default=None, description="Where it is asked.")
    judge_api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds its key."
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds the server's key."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Limit on an answer below the tasks' own."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Most episodes played in parallel; by default as many as the server sustains.",
    )
    wait: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds that the end of training waits for results still to come.",
    )
    strict: bool = Field(
        default=False, description="Whether a failed evaluation ends training with an error."
    )

    @field_validator("suites", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        known = [*SUITES, *(benchmark.name for benchmark in BENCHMARKS)]
        if isinstance(names, list) and (wrong := [name for name in names if name not in known]):
            raise ValueError(f"found {wrong[0]!r}, expected any of {', '.join(known)}")
        return names

    @model_validator(mode="after")
    def _options_fit(self) -> EndpointConfig:
        check_options(self.options, self.suites)
        return self
