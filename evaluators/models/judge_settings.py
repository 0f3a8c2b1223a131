"""Settings of the model that rates answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dataset_builders.endpoints.address import check_address
from dataset_builders.settings import settings


@settings
class JudgeSettings:
    """The judging model, and how it is sampled."""

    model: str = Field(min_length=1, description="Judge model (MT-Bench, ReWOO).")
    base_url: str | None = Field(
        default=None, description="Base URL of the judge model; default: OpenAI's."
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the judge's API key."
    )
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature of the judge.")
    token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="Name of the token limit at the judge: max_tokens or max_completion_tokens.",
    )
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="Extra request field for the judge, as name=JSON; repeatable.",
    )

    def __post_init__(self) -> None:
        if self.base_url is not None:
            check_address(self.base_url)
