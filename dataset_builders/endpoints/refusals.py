"""Classify an endpoint's error response: by codes, then retry hints, then wording.

Codes are made for programs, wording is not: the message of a limit per minute may suggest adding a
payment method, and a wrong setting may be "too long" or "must be <=" something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_I = re.IGNORECASE

_QUOTA_CODE = re.compile(
    r"insufficient_(?:quota|balance|credit|fund)|billing|payment|credits?_(?:exhausted|required)"
    r"|out_of_credit",
    _I,
)
_RATE_CODE = re.compile(
    r"rate_?limit|too_?many_?requests|throttl|overload|slow_?down|^requests$|^tokens$", _I
)
_RATE_WORDS = re.compile(
    r"rate.?limit|per.?(?:second|sec|minute|min|hour|day)\b|\b[RT]P[MD]\b|too many requests"
    r"|concurren|slow down",
    _I,
)
_QUOTA_WORDS = re.compile(r"insufficient_quota|quota|billing|credit|payment|balance", _I)

_LARGE_WORDS = re.compile(r"request too large|must be reduced in order to run", _I)
_LARGE_NUMBERS = re.compile(r"\blimit:? ([\d,]+).{0,80}?\brequested:? ([\d,]+)", _I)

_SETTING_CODE = re.compile(r"(?:unknown|unsupported|unrecognized)_", _I)
_SETTING_WORDS = re.compile(
    r"(?:unknown|unrecogni[sz]ed|unsupported|unexpected) (?:\w+ )?(?:parameter|field|argument"
    r"|keyword|value|key)|extra (?:inputs|fields)|not permitted",
    _I,
)
_OF_LENGTH = frozenset(
    {"messages", "prompt", "input", "inputs", "input_tokens", "contents"}
    | {"max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens"}
)
"""Fields of a request named in errors about a full context."""

_CONTEXT_CODE = re.compile(r"context_?(?:length|window|size|limit)|string_above_max_length", _I)
_CONTEXT = re.compile(
    r"context.{0,3}(?:length|window|size|limit)|maximum context|maximum model length|max_model_len"
    r"|reduce (?:the|your) (?:length|prompt|input|message)|too many (?:input |prompt )?tokens"
    r"|(?:prompt|inputs?|messages?|conversation|dialogue|request)"
    r" (?:\([^)]*\) )?(?:(?:is|are|was) )?too long"
    r"|(?:prompt|inputs?)\W{1,2}(?:has |with |contains )?(?:\d+ )?tokens.{0,60}must be <="
    r"|inputs?\W{1,2}must have less than \d+ tokens|input token count.{0,40}exceeds",
    _I,
)
_CONTENT = re.compile(
    r"content.{0,3}(?:filter|policy|management)|moderation|flagged|safety system", _I
)

_TOOLS = re.compile(
    r"\btools?\b.{0,60}(?:schema|parameter|support|choice|parser|invalid)"
    r"|(?:not support|unsupported|invalid).{0,40}(?:\btools?\b|function)"
    r"|function.{0,60}(?:schema|parameter)",
    _I,
)
_TOOL_INDEX = re.compile(r"\b(?:tools|functions)\W{1,3}(\d+)")

_WAIT = re.compile(r"(?:try again|retry)\W{1,3}(?:in|after)\W{1,3}((?:[\d.]+ ?[a-z]+ ?){1,4})", _I)
_SPAN = re.compile(r"([\d.]+) ?(ms|milli|h|m|s)", _I)
_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response with an error status.

    Attributes:
        status: Of HTTP.
        headers: By lower-case name.
        body: Its decoded JSON; openai extracts the field "error".
        text: All of it in one line.
    """

    status: int
    headers: Mapping[str, Any]
    body: Any
    text: str

    @property
    def out_of_quota(self) -> bool:
        """Whether waiting does not help with a 429, as for an account without credit."""
        for code in self._codes():
            if _QUOTA_CODE.search(code):
                return True
            if _RATE_CODE.search(code):
                return False
        rate = _RATE_WORDS.search(self.text) or _LARGE_NUMBERS.search(self.text)
        if self.wait is not None or rate:
            return False
        return _QUOTA_WORDS.search(self.text) is not None

    @property
    def too_large(self) -> bool:
        """Whether the request alone exceeds the limit per minute."""
        if self.status == 429 or (
            self.status == 413 and any(map(_RATE_CODE.search, self._codes()))
        ):
            numbers = _LARGE_NUMBERS.search(self.text)
            if numbers and _whole(numbers[2]) > _whole(numbers[1]):
                return True
            return _LARGE_WORDS.search(self.text) is not None
        return False

    @property
    def context_full(self) -> bool:
        """Whether the dialogue exceeds the model's context."""
        if self.status == 413:
            return True
        if self.status not in (400, 422) or self._of_setting():
            return False
        coded = any(map(_CONTEXT_CODE.search, self._codes()))
        return coded or _CONTEXT.search(self.text) is not None

    @property
    def filtered(self) -> bool:
        """Whether a content filter rejected it."""
        return self.status in (400, 403, 422) and _CONTENT.search(self.text) is not None

    def of_tools(self, names: Sequence[str]) -> str | None:
        """Return the tool that the endpoint rejects, "" if it names none; None if it is not that.

        Args:
            names: Names of the tools that the request offered.
        """
        named = str(_error_of(self.body).get("param") or "")
        field = re.split(r"[.\[]", named)[0]
        if self.status not in (400, 422) or not names or field in _OF_LENGTH:
            return None
        if field not in ("tools", "functions", "tool_choice") and not _TOOLS.search(self.text):
            return None
        index = _TOOL_INDEX.search(f"{named} {self.text}")
        if index and int(index[1]) < len(names):
            return names[int(index[1])]
        said = (name for name in names if re.search(rf"(?<![\w-]){name}(?![\w-])", self.text))
        return next(said, "")

    @property
    def wait(self) -> float | None:
        """Seconds to wait, by its headers, else by its body; None if not stated."""
        asked = retry_after(self.headers)
        if asked is not None:
            return asked
        found = _WAIT.search(self.text) or re.search(r"retryDelay\W{1,5}([\d.]+ ?s)", self.text)
        spans = _SPAN.findall(found[1]) if found else []
        seconds = [_seconds(number) for number, _ in spans]
        if not spans or None in seconds:
            return None
        units = [_SECONDS[unit.lower()] for _, unit in spans]
        return sum((number or 0.0) * unit for number, unit in zip(seconds, units, strict=True))

    def _of_setting(self) -> bool:
        """Whether it concerns a request field other than text and length."""
        named = str(_error_of(self.body).get("param") or "")
        field = re.split(r"[.\[]", named)[0]
        if field and field not in _OF_LENGTH:
            return True
        coded = any(map(_SETTING_CODE.match, self._codes()))
        return coded or _SETTING_WORDS.search(self.text) is not None

    def _codes(self) -> Iterator[str]:
        """Machine-readable error names, the most specific first."""
        fields = _error_of(self.body)
        for name in ("code", "type", "error_type", "status"):
            if isinstance(fields.get(name), str):
                yield fields[name]


def _error_of(body: Any) -> Mapping[str, Any]:
    # Google wraps it in a list, proxies in a second "error".
    while True:
        if isinstance(body, list) and body:
            body = body[0]
        elif isinstance(body, dict) and isinstance(body.get("error"), dict | list):
            body = body["error"]
        else:
            return body if isinstance(body, dict) else {}


def _whole(digits: str) -> int:
    return int(digits.replace(",", "") or 0)


def retry_after(headers: Mapping[str, Any], now: datetime | None = None) -> float | None:
    """Return the seconds to wait: from `retry-after-ms`, seconds, or an HTTP date.

    Returns:
        At least 0; None if absent or unparsable.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _seconds(text)
    if seconds is not None or not text:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone is GMT in HTTP.
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


def _seconds(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if 0 <= value < float("inf") else None
