"""Endpoint settings: URL, API key, timeouts and retries."""

from __future__ import annotations

import os
import re
from typing import Any

from pydantic import Field

from dataset_builders.endpoints.address import check_address
from dataset_builders.errors import ConfigError
from dataset_builders.extras import needs_extra, require_modules
from dataset_builders.settings import settings

_OPENAI = "https://api.openai.com/v1"


@settings
class Endpoint:
    """A model endpoint, with its timeouts and retries.

    The API key may be unset if `base_url` is given and the server needs none.
    """

    model: str = Field(description="Name of the model.")
    base_url: str | None = Field(
        default=None,
        description="Base URL of the endpoint. [default: OPENAI_BASE_URL, or OpenAI's]",
    )
    key_variable: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the API key."
    )
    timeout: float = Field(
        default=600.0,
        gt=0,
        description="Timeout of a request in seconds, to the last byte of its response.",
    )
    tries: int = Field(
        default=8, ge=1, description="Maximum tries of a failing request; a 429 does not count."
    )
    patience: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds without any answer after which the endpoint is held to be down.",
    )
    back_off: float = Field(
        default=0.5,
        ge=0,
        description="Seconds before the first retry; doubles with each, up to a minute.",
    )

    def __str__(self) -> str:
        return f"{self.model} at {self.address}"

    @property
    def address(self) -> str:
        """Base URL of requests, without a password it may contain."""
        address = self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        return re.sub(r"(?<=//)[^/@]*@", "", address)

    @property
    def key(self) -> str:
        """The API key, or ""."""
        return os.environ.get(self.key_variable, "")

    def check(self) -> None:
        """Check the preconditions of `connect`; nothing is sent.

        Raises:
            MissingExtraError: openai is not installed.
            ConfigError: The variable with the key is not set, or `base_url` is not a URL.
        """
        require_modules(("openai",), "collect")
        if self.base_url is not None:
            check_address(self.base_url)
        if not self.key and self.base_url is None:
            raise ConfigError(f"{self.key_variable}: not set, expected the endpoint's key")

    def connect(self) -> Any:
        """Create openai's client.

        Raises:
            MissingExtraError, ConfigError: As `check`.
        """
        self.check()
        with needs_extra("collect"):
            import openai
        # The client's own retries would multiply ours, and hide 429s from the limit.
        return openai.AsyncOpenAI(
            api_key=self.key or "none",
            base_url=self.base_url,
            max_retries=0,
            timeout=self.timeout,
            http_client=_transport(openai),
        )


def _transport(openai: Any) -> Any:
    """Return openai's HTTP transport: aiohttp, which halves a request's time, or the default."""
    try:
        return openai.DefaultAioHttpClient()
    except (AttributeError, RuntimeError):  # An older openai, or aiohttp is not installed.
        return None
