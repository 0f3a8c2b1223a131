"""Connections to a MariaDB server, private or given."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataset_builders.errors import EnvironmentFailureError, MissingExtraError


def load_client() -> Any:
    """Import pymysql.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pymysql
    except ImportError as error:
        raise MissingExtraError(
            "database: backend mariadb: pip install 'agenttuning-plugin[mariadb]'"
        ) from error
    return pymysql


def connect(**settings: Any) -> Any:
    """Connect like `pymysql.connect`, without leaking a Unix socket if no server answers.

    Raises:
        pymysql.MySQLError: There is no such server, or it rejects the connection.
    """
    client = load_client()
    if "unix_socket" not in settings:
        return client.connect(**settings)
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(settings["unix_socket"])
    except OSError as error:
        link.close()
        raise client.err.OperationalError(2002, f"no server answers: {error}") from error
    connection = client.connect(**settings, defer_connect=True)
    connection.connect(link)
    return connection


@contextmanager
def telling_loss() -> Iterator[None]:
    """Convert the error of a lost server to EnvironmentFailureError; other errors pass through.

    Errors from 2000 on are the client's own: it could not reach the server.
    """
    try:
        yield
    except load_client().MySQLError as error:
        number = error.args[0] if error.args else 0
        if number == 0 or 2000 <= number < 3000:
            raise EnvironmentFailureError(f"database: MariaDB server lost: {error}") from error
        raise
