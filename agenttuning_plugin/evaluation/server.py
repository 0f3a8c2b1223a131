"""Routes of a server beyond OpenAI's API, used by `endpoint` and `check`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dataset_builders.errors import EndpointError

SECONDS = 600.0
"""Loading an adapter may wait for running generations."""


class RouteError(EndpointError):
    """A route answered with an error status, or not at all.

    Attributes:
        status: Of HTTP; None if there was no answer.
        reply: The server's message, in one line.
    """

    def __init__(self, message: str, status: int | None = None, reply: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Server:
    """A server's base URL and API key.

    Attributes:
        base_url: Such as `http://127.0.0.1:8000/v1`.
        api_key_env: Environment variable with its API key.
        seconds: Timeout.
    """

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    seconds: float = SECONDS

    def call(self, route: str, body: Any = None, *, root: bool = False) -> Any:
        """Send a GET or POST request to a route.

        Args:
            route: Its name below the base URL.
            body: JSON to post; None sends a GET.
            root: Whether the route is next to `/v1`, not below it.

        Returns:
            The answer as JSON, or as text if it is not JSON.

        Raises:
            RouteError: In one line, without the key.
        """
        base = self.base_url.rstrip("/")
        base = base.removesuffix("/v1") if root else base
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.api_key_env, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        content = None if body is None else json.dumps(body).encode()
        try:
            request = Request(f"{base}/{route}", content, headers)
            with urlopen(request, timeout=self.seconds) as answer:
                text = answer.read().decode("utf-8", "replace")
        except HTTPError as error:
            reply = " ".join(error.read(2000).decode("utf-8", "replace").split())
            if key:
                reply = reply.replace(key, "[the key]")
            line = f"HTTP {error.code}: {reply[:300]}"
            raise RouteError(line, error.code, reply) from error
        except (URLError, OSError, ValueError) as error:
            raise RouteError(str(error)) from error
        try:
            return json.loads(text)
        except ValueError:
            return text

    def models(self) -> list[dict[str, Any]]:
        """Return the list of `/models`.

        Raises:
            RouteError: It does not answer, or its answer has another format.
        """
        try:
            answer = self.call("models")
        except RouteError as error:
            hint = " (base_url ends in /v1)" if error.status == 404 else ""
            raise RouteError(f"{self.base_url}: /models: {error}{hint}", error.status) from error
        rows = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RouteError(f"{self.base_url}: /models: found no list of models")
        return rows


def load_hint(error: RouteError, adapter: str) -> str:
    """Return a hint on a rejected adapter, to append to the error; "" if there is none."""
    if error.status != 404:
        return ""
    if "adapter" in error.reply.lower():
        return f" (the server does not see {adapter}: it needs the output folder, same path)"
    return (
        " (vLLM has this route with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora; "
        "base_url ends in /v1)"
    )
