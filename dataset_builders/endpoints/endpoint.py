"""Endpoint settings: URL, API key, timeouts and retries."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from dataset_builders.endpoints.address import check_address
from dataset_builders.errors import ConfigError
from dataset_builders.extras import needs_extra, require_modules

_OPENAI = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model endpoint, with its timeouts and retries.

    Attributes:
        model: Name of the model.
        base_url: Such as "http://127.0.0.1:8000/v1"; if None, that of the variable
            OPENAI_BASE_URL, or OpenAI's.
        key_variable: Environment variable with the API key. It may be unset if `base_url` is given
            and the server needs none.
        timeout: Seconds from sending a request to the last byte of its response.
        tries: Maximum tries of a request; a 429 does not count.
        patience: Seconds without any answer after which the endpoint is held to be down.
        back_off: Seconds before the first retry; doubles with each, up to a minute.
    """

    model: str
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 600.0
    tries: int = 8
    patience: float = 3600.0
    back_off: float = 0.5

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
