"""Classify failed requests: retry, end the episode or stop the run.

docs/guides/collect.md has these rules as a table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from socket import gaierror
from typing import Any, Literal

from dataset_builders.endpoints.refusals import Refusal
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.errors import EndpointError
from dataset_builders.finish_reason import is_filter

REFUSED = "refused_by_endpoint"
BAD_REQUEST = "bad_request"
ENDPOINT_ERROR = "endpoint_error"
TOO_LARGE = "request_too_large"
"""Exit reason: larger than the account's limit per minute, so waiting does not help."""

OF_ENDPOINT = frozenset({REFUSED, BAD_REQUEST, ENDPOINT_ERROR, TOO_LARGE})
"""Exit reasons caused by the endpoint, not by the model's output."""

_SHORTEST_SECRET = 6  # A shorter key is a placeholder, and may be part of any word.
_OVERLOAD = frozenset({429, 502, 503, 504, 529})
_RETRIED = frozenset({408, 409, 425})


class EpisodeEndedError(Exception):
    """The episode cannot continue; others can.

    Attributes:
        reason: The exit reason.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class UnprovenError(EndpointError):
    """A request failed for good and no other was answered: the task or the endpoint is at fault.

    Attributes:
        reason: The class of its last failure, see `Failure.reason`.
        spoke: Whether the endpoint itself rejected it: a gateway's status, or a timeout, may be an
            outage.
    """

    def __init__(self, message: str, reason: str = "", *, spoke: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.spoke = spoke


@dataclass(frozen=True, slots=True)
class Failure:
    """Classification of a failed request.

    Attributes:
        verdict: "retry" it, end the "episode", or stop the "run".
        reason: Exit reason of the episode, or the class of the failure.
        message: One line for the user.
        overload: Whether fewer requests should be in flight.
        limited: Whether the endpoint works and only limits the rate (429).
        wait: Seconds that the endpoint requests all to wait; None if it does not.
        doubtful: Of a "run": whether it may be the request's own fault, not that of all.
        absent: Whether the endpoint refuses connections.
        status: Of a "run": HTTP status of the answer.
    """

    verdict: Literal["retry", "episode", "run"]
    reason: str
    message: str
    overload: bool = False
    limited: bool = False
    wait: float | None = None
    doubtful: bool = False
    absent: bool = False
    status: int | None = None


def ends_episode(reply: Reply) -> str:
    """Return the exit reason of the episode that a paid reply ends; "" if it does not end.

    A filter of the endpoint cut the turn, or the end of the context did.
    """
    if is_filter(reply.finish_reason):
        return REFUSED
    return CONTEXT_FULL if reply.finish_reason == CONTEXT_FULL else ""


def judge(
    error: Exception, *, proven: bool, secret: str = "", tools: Sequence[str] = ()
) -> Failure:
    """Classify a failed request: by status, then codes, then retry hints, then wording.

    Args:
        error: The client's exception.
        proven: Whether the endpoint has answered such a request before: if so, a rejection is the
            episode's fault, otherwise the settings'.
        secret: The API key; removed from messages, since some endpoints repeat it.
        tools: Names of the tools that the request offered, if the endpoint has answered no request
            with tools so far: they are the same in every request.
    """
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)

    def line(text: str) -> str:
        text = text.replace(secret, "[the key]") if len(secret) >= _SHORTEST_SECRET else text
        return " ".join(text.split())

    text = line(_wording(error, body))
    if status is None:
        return _without_answer(error, text[:400])
    # Codes and retry hints of the body count too, which openai leaves out of its message.
    whole = f"{text} {line(_json(body))}" if body else text
    refusal = Refusal(status, getattr(getattr(error, "response", None), "headers", {}), body, whole)
    message = f"HTTP {status}: {text[:400]}"
    if refusal.too_large:
        return Failure("episode", TOO_LARGE, message)
    if status == 429 and refusal.out_of_quota:
        return Failure("run", "quota", message)
    if status >= 500 or status == 429 or status in _RETRIED:
        return Failure(
            *("retry", f"http_{status}", message),
            overload=status in _OVERLOAD,
            limited=status == 429,
            wait=refusal.wait,
        )
    if (tool := refusal.of_tools(tools)) is not None:
        what = f"the tool {tool!r}" if tool else "tools"
        return Failure("run", BAD_REQUEST, f"the endpoint refuses {what}: {message}")
    if refusal.context_full:
        return Failure("episode", CONTEXT_FULL, message)
    if refusal.filtered:
        return Failure("episode", REFUSED, message)
    if status in (400, 422):
        if proven:
            return Failure("episode", BAD_REQUEST, message)
        return Failure("run", BAD_REQUEST, message, doubtful=True)
    return Failure("run", f"http_{status}", message, status=status)


def _wording(error: Exception, body: Any) -> str:
    """Return an error's message, with the server's own words and code where it lacks them.

    openai 3 takes them from `error.message` only; FastAPI has `detail`, others `error` as a text.
    """
    text, fields = str(error), body if isinstance(body, dict) else {}
    if body and re.fullmatch(r"Error code: \d+", text):
        said = fields.get("detail") or fields.get("message") or body
        text += f" - {said if isinstance(said, str) else _json(said)}"
    code = fields.get("code")
    return f"{text} {code}" if code and str(code) not in text else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _without_answer(error: Exception, line: str) -> Failure:
    # By the underlying error: openai over aiohttp reports a dropped connection as a timeout, too.
    causes = list(_causes(error))
    slow = any(isinstance(each, TimeoutError) for each in causes)
    reason = "timeout" if slow else "broken_response"
    if not slow and isinstance(error, _connection_errors()):
        reason = "connection"
    absent = bool(absence(error))
    message = absence(error) or f"{type(error).__name__}: {line}"
    return Failure("retry", reason, message, overload=slow, absent=absent)


def absence(error: BaseException) -> str:
    """Return why the host cannot be reached, from an error's cause; else ""."""
    for each in _causes(error):
        if isinstance(each, ConnectionRefusedError):
            return "connection refused: nothing listens at this address"
        if isinstance(each, gaierror):
            return f"the host is unknown: {each.strerror or each}"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _connection_errors() -> tuple[type[Exception], ...]:
    from openai import APIConnectionError

    return APIConnectionError, OSError
