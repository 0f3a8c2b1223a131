"""Options of requests to a server, given as name=JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dataset_builders.errors import ConfigError

_OWN = ("model", "messages", "stream")


def json_fields(texts: Sequence[str] | None, option: str = "--request") -> dict[str, Any]:
    """Parse request fields given as name=JSON.

    Args:
        texts: As given.
        option: The option, for messages.

    Raises:
        ConfigError: One is malformed, or is a field that cannot be set.
    """
    fields: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        try:
            fields[name] = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{option}: found {text!r}, expected name=JSON: {error}") from error
        if not equals or not name or name in _OWN:
            raise ConfigError(
                f"{option}: found {text!r}, expected a field of sampling as name=JSON"
            )
    return fields
