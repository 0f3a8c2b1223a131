"""Checks an endpoint's address and explains likely mistakes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dataset_builders.errors import ConfigError

_BARE = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)*:\d{1,5}|\d{1,3}(?:\.\d{1,3}){3})(?:/.*)?")


def lacks_scheme(text: str) -> bool:
    """Whether a text is a server's address without `http://`, such as "127.0.0.1:8000/v1"."""
    return _BARE.fullmatch(text) is not None


def check_address(address: str, name: str = "base_url") -> None:
    """Look for a scheme and a host.

    Args:
        address: The address.
        name: The setting, for the message.

    Raises:
        ConfigError: It has none.
    """
    if lacks_scheme(address):
        raise ConfigError(f"{name}: found {address!r}, expected a scheme: http://{address}")
    parts = urlsplit(address) if address.startswith(("http://", "https://")) else None
    if parts is None or not parts.hostname:
        raise ConfigError(
            f"{name}: found {address!r}, expected one such as http://127.0.0.1:8000/v1"
        )


def hint(address: str, status: int | None) -> str:
    """A hint about the address from a refusal; "" if there is none.

    Args:
        address: Where the request went.
        status: HTTP status of the answer.
    """
    path = urlsplit(address).path.rstrip("/")
    if status not in (404, 405) or re.search(r"/v\d", path):
        return ""
    return f" (the address has no /v1: is it {address.rstrip('/')}/v1?)"
