"""Section `agenttuning.endpoint`: evaluation on an inference server during training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from agenttuning_plugin.config.evaluation_run import EvaluationRun
from dataset_builders.settings import field_of
from evaluators.models.judge_settings import JudgeSettings
from evaluators.tasks.registry import (
    BENCHMARKS,
    FURTHER,
    IN_FLIGHT,
    SUITES,
    SuiteSettings,
    check_options,
    is_benchmark,
)
from evaluators.training.schedule import Cadence

_SHARED = ("data", "prompt", "agentinstruct", "prompt_suffix", "max_new_tokens", "options")


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
    limit: int | None = field_of(EvaluationRun, "limit")
    data: str | None = field_of(SuiteSettings, "data")
    prompt: Literal["own", "published"] = field_of(SuiteSettings, "prompt")
    agentinstruct: str | None = field_of(SuiteSettings, "agentinstruct")
    prompt_suffix: str = field_of(SuiteSettings, "prompt_suffix")
    options: dict[str, dict[str, Any]] = field_of(SuiteSettings, "options")
    judge_model: str | None = field_of(JudgeSettings, "model", default=None)
    judge_base_url: str | None = field_of(JudgeSettings, "base_url")
    judge_api_key_env: str = field_of(JudgeSettings, "api_key_env")
    api_key_env: str = field_of(EvaluationRun, "api_key_env")
    max_new_tokens: int | None = field_of(SuiteSettings, "max_new_tokens")
    batch_size: int | None = field_of(
        SuiteSettings,
        "batch_size",
        default=None,
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
        shared = {name: getattr(self, name) for name in _SHARED}
        if self.judge_model:
            shared["judge"] = JudgeSettings(
                self.judge_model, self.judge_base_url, self.judge_api_key_env
            )
        return SuiteSettings(batch_size=self.batch_size or IN_FLIGHT, **shared)

    @field_validator("suites", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        for name in names if isinstance(names, list) else ():
            if name not in SUITES and not is_benchmark(str(name)):
                known = [*SUITES, *(each.name for each in (*BENCHMARKS, *FURTHER))]
                raise ValueError(f"found {name!r}, expected any of {', '.join(known)}")
        return names

    @model_validator(mode="after")
    def _options_fit(self) -> EndpointConfig:
        check_options(self.options, self.suites)
        return self
