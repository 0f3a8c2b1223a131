"""URL of a MariaDB or MySQL server and its administrator account."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dataset_builders.errors import ConfigError

PASSWORD_VARIABLE = "AGENTTUNING_MARIADB_PASSWORD"
"""Environment variable with the password, if the URL has none."""

_SCHEMES = ("mysql", "mariadb")
# A TLS handshake takes 20 ms per connection, and protects nothing within one machine.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def parse_url(url: str) -> dict[str, Any]:
    """Parse `mysql://user:password@host:port`, or `mysql://user@/?unix_socket=/path`.

    Raises:
        ConfigError: It is malformed. The message does not repeat it: it may contain a password.
    """
    expected = "database: url: expected mysql://user:password@host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(expected) from error
    query = parse_qs(parts.query)
    if parts.scheme not in _SCHEMES or not parts.username or set(query) - {"unix_socket"}:
        raise ConfigError(expected)
    password = parts.password if parts.password is not None else os.environ.get(PASSWORD_VARIABLE)
    settings: dict[str, Any] = {
        "user": unquote(parts.username),
        "password": unquote(password or "") if parts.password is not None else password or "",
    }
    if "unix_socket" in query:
        return settings | {"unix_socket": query["unix_socket"][0], "ssl_disabled": True}
    host = parts.hostname or "127.0.0.1"
    return settings | {"host": host, "port": port or 3306, "ssl_disabled": host in _LOOPBACK}
