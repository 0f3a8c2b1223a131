"""Settings of the model that rates answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dataset_builders.endpoints.address import check_address
from dataset_builders.settings import settings


@settings
class JudgeSettings:
    """The judging model, and how it is sampled."""

    model: str = Field(min_length=1, description="Its name at the endpoint.")
    base_url: str | None = Field(
        default=None,
        description="Address, such as `http://127.0.0.1:8000/v1`; OpenAI's if left out.",
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds its key."
    )
    temperature: float = Field(default=0.0, ge=0, description="Sampling temperature.")
    token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="Name of the request's field for the token limit."
    )
    request: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of requests, by name."
    )

    def __post_init__(self) -> None:
        if self.base_url is not None:
            check_address(self.base_url)
