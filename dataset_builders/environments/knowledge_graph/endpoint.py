"""Graph behind a SPARQL endpoint, such as a Virtuoso with all of Freebase."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from dataset_builders.environments.knowledge_graph.graph import NAMESPACE
from dataset_builders.errors import ConfigError, EnvironmentFailureError

TIMEOUT = 60.0
"""Seconds that one query may take."""

_RESULTS = "application/sparql-results+json"
# Virtuoso appends its time zone to dates; AgentBench's answers have none.
_ZONE = "-08:00"


class EndpointGraph:
    """A SPARQL 1.1 endpoint, queried by POST.

    Args:
        url: Its address, http or https.
        timeout: Seconds that one query may take.

    Raises:
        ConfigError: The address or the timeout is invalid.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"endpoint: found {url!r}, expected http:// or https:// and a host")
        if not timeout > 0:
            raise ConfigError(f"timeout: found {timeout}, expected more than 0 seconds")
        self.url, self.timeout = url, timeout

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """See `Graph.rows`."""
        answer = self._ask(query)
        try:
            names = answer["head"]["vars"]
            bindings = answer["results"]["bindings"]
            return [tuple(_value(each.get(name)) for name in names) for each in bindings]
        except (KeyError, TypeError, AttributeError) as error:
            raise EnvironmentFailureError(
                f"{self.url}: the answer is not of the form {_RESULTS}"
            ) from error

    def _ask(self, query: str) -> Any:
        body = urlencode({"query": query}).encode()
        request = Request(self.url, body, {"Accept": _RESULTS})
        try:
            with urlopen(request, timeout=self.timeout) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                reply = " ".join(error.read(2000).decode("utf-8", "replace").split())
            message = f"{self.url}: HTTP {error.code}: {reply[:200]}"
        except TimeoutError:
            message = f"{self.url}: no answer within {self.timeout:g} s"
        except (OSError, HTTPException) as error:
            # A timeout while connecting is wrapped.
            cause = getattr(error, "reason", None) or error
            message = f"{self.url}: {type(cause).__name__}: {cause}"
        except ValueError:
            message = f"{self.url}: the answer is not JSON"
        raise EnvironmentFailureError(message)


def _value(binding: dict[str, str] | None) -> str:
    if binding is None:
        return ""
    return binding["value"].removeprefix(NAMESPACE).replace(_ZONE, "")
