"""Interpret a server's `finish_reason`: completed, filtered, truncated or unfinished.

`finish_reason` beyond OpenAI's "stop", "length", "tool_calls" and "content_filter": vLLM and
SGLang have "abort", OpenRouter "error" with an `error` on the choice, DeepSeek
"insufficient_system_resource", Gemini's filters names of their own.
"""

from __future__ import annotations

import re
from typing import Any

_GIVEN_UP = re.compile(
    r"abort|error|cancel|interrupt|time.?out|timed|fail|insufficient|overload|disconnect"
    r"|unavailable|network",
    re.IGNORECASE,
)
_FILTERS = frozenset(
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "sensitive"}
)
_LENGTH = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
UNSAID = "null"
"""A `finish_reason` of null: unfinished, unless the server never gives one."""
_CONTEXT = frozenset({"model_length", "model_context_window_exceeded"})


class BrokenResponseError(Exception):
    """The endpoint's response contains no turn of the model.

    Attributes:
        status_code: HTTP status stated by the error in the response; None if it states none, which
            is a fault of the server, not of the request.
        body: The error object in the response, if there is one.
    """

    def __init__(self, message: str, status_code: int | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.body = body


def check_error(part: Any, *, whole: bool = True) -> None:
    """Check for an `error` in a response with status 200, or in one of its choices.

    Args:
        part: The response, or the choice.
        whole: Whether it is the whole response. Its error may blame the request; an error of a
            started choice is the server's.

    Raises:
        BrokenResponseError: There is one.
    """
    error = part.get("error") if isinstance(part, dict) else None
    if not error:
        return
    known = error if isinstance(error, dict) else {}
    code = str(known.get("code"))
    status = int(code) if re.fullmatch(r"[45]\d\d", code, re.ASCII) else None
    if status is not None and status < 500 and status != 429 and not whole:
        status = None
    line = " ".join(str(known.get("message") or error).split())[:300]
    raise BrokenResponseError(
        f"a response with status 200 holds an error: {line}", status, known or None
    )


def check_finish(reason: str) -> None:
    """Reject a turn that the server aborted.

    Raises:
        BrokenResponseError: It was aborted: the partial text is not the model's answer.
    """
    if _GIVEN_UP.search(reason):
        raise BrokenResponseError(f"the server aborted the turn: finish_reason {reason!r}")


def is_filter(reason: str) -> bool:
    """Whether a content filter truncated the turn."""
    return reason.lower() in _FILTERS


def is_cut(reason: str) -> bool:
    """Whether the turn was truncated at a token limit."""
    return reason.lower() in _LENGTH


def cut_by_context(reason: str, written: int, limit: int) -> bool:
    """Whether a turn was truncated before the limit that the request set.

    vLLM lowers the limit to the remaining context instead of rejecting the request; such a turn is
    not the model's answer.

    Args:
        reason: The `finish_reason`.
        written: Tokens of the turn; 0 if the server does not say.
        limit: Tokens that the request allowed; 0 if unknown.
    """
    if reason.lower() in _CONTEXT:
        return True
    return is_cut(reason) and 0 < written < limit


class FinishWatch:
    """Distinguishes unfinished turns from servers that never give a finish reason.

    A turn with a `finish_reason` of null is requested again, only once while the server has not
    given any reason: if the second one is null as well, the server gives none.
    """

    def __init__(self) -> None:
        self._gives: bool | None = None
        self._asked: set[str] = set()

    def check(self, reason: str, key: str) -> None:
        """Check a reply's `finish_reason`.

        Args:
            reason: The value, from `read_reply`.
            key: Identifies the request.

        Raises:
            BrokenResponseError: The turn is unfinished.
        """
        if reason and reason != UNSAID:
            self._gives = True
        if reason != UNSAID or self._gives is False:
            return
        if self._gives is None and key in self._asked:
            self._gives = False
            return
        self._asked.add(key)
        raise BrokenResponseError("the server left the turn unfinished: finish_reason is null")
