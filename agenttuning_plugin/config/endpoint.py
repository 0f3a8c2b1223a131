"""Section `agenttuning.endpoint`: evaluation on an inference server during training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from evaluators.models.judge_settings import JudgeSettings
from evaluators.tasks.registry import BENCHMARKS, IN_FLIGHT, SUITES, SuiteSettings, check_options
from evaluators.training.schedule import Cadence


class EndpointConfig(Cadence):
    """Evaluates on a server that loads the adapter, while training continues."""

    base_url: str = Field(
        pattern=r"^https?://",
        description="Base URL of the server, such as `http://127.0.0.1:8000/v1`; it must see the "
        "output folder under the same path.",
    )
    lora_route: Literal["vllm"] = Field(
        default="vllm",
        description="How the server loads an adapter: `vllm`, by `POST /load_lora_adapter`.",
    )
    every: int | None = Field(
        default=None, ge=1, description="Optimizer steps between runs; default: no runs in between."
    )
    suites: list[str] = Field(
        default=["held-in"],
        min_length=1,
        description="Suites and tasks, as for `agenttuning evaluate --suite`.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum items per task, the first ones; default: all."
    )
    data: str | None = Field(default=None, description="Folder with one data folder per task.")
    prompt: Literal["own", "published"] = Field(
        default="own",
        description="Prompt template of the held-in environments: `own` (built in) or `published` "
        "(from AgentInstruct).",
    )
    agentinstruct: str | None = Field(
        default=None, description="AgentInstruct copy with the published prompts."
    )
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Options by task, such as `{database: {backend: mariadb}}`.",
    )
    judge_model: str | None = Field(default=None, description="Judge model (MT-Bench, ReWOO).")
    judge_base_url: str | None = Field(default=None, description="Base URL of the judge model.")
    judge_api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the judge's API key."
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the server's API key."
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Maximum tokens of an answer, if below the tasks' own."
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Maximum concurrent episodes; default: as many as the server sustains.",
    )
    wait: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds to wait for outstanding results at the end of training.",
    )
    strict: bool = Field(
        default=False, description="Whether a failed evaluation aborts training with an error."
    )

    def task_settings(self) -> SuiteSettings:
        """Settings of the suites' tasks."""
        judge = self.judge_model and JudgeSettings(
            self.judge_model, self.judge_base_url, self.judge_api_key_env
        )
        return SuiteSettings(
            data=self.data,
            prompt=self.prompt,
            agentinstruct=self.agentinstruct,
            batch_size=self.batch_size or IN_FLIGHT,
            max_new_tokens=self.max_new_tokens,
            judge=judge or None,
            options=self.options,
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
