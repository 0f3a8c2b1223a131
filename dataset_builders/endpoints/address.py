"""Validate an endpoint's URL and explain likely mistakes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dataset_builders.errors import ConfigError

_BARE = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)*:\d{1,5}|\d{1,3}(?:\.\d{1,3}){3})(?:/.*)?")


def lacks_scheme(text: str) -> bool:
    """Whether a text is a server URL without `http://`, such as "127.0.0.1:8000/v1"."""
    return _BARE.fullmatch(text) is not None


def check_address(address: str, name: str = "base_url") -> None:
    """Check that a URL has a scheme and a host.

    Args:
        address: The address.
        name: The setting, for the message.

    Raises:
        ConfigError: It lacks one.
    """
    if lacks_scheme(address):
        raise ConfigError(f"{name}: found {address!r}, expected a scheme: http://{address}")
    parts = urlsplit(address) if address.startswith(("http://", "https://")) else None
    if parts is None or not parts.hostname:
        raise ConfigError(
            f"{name}: found {address!r}, expected one such as http://127.0.0.1:8000/v1"
        )


def hint(address: str, status: int | None) -> str:
    """Return a hint about the URL from a refusal; "" if there is none.

    Args:
        address: URL of the request.
        status: HTTP status of the answer.
    """
    path = urlsplit(address).path.rstrip("/")
    if status not in (404, 405) or re.search(r"/v\d", path):
        return ""
    return f" (the address has no /v1: is it {address.rstrip('/')}/v1?)"
