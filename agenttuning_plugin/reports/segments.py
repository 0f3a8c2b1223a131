"""Split a row's text into segments by loss coverage, and make it safe to display."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

_HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # Unicode's general categories
_SHOWN = {"\n", "\t"}


class Segment(NamedTuple):
    """A segment of text.

    Attributes:
        text: The text.
        trained: Whether the loss covers it.
    """

    text: str
    trained: bool


Range = tuple[int, int]
"""Half-open range."""


def _within(position: int, ranges: Sequence[Range]) -> bool:
    return any(start <= position < end for start, end in ranges)


def decode_pieces(
    ids: Sequence[int], trained: Iterable[Range], decode: Callable[[Sequence[int]], str]
) -> list[Segment]:
    """Decode a row in pieces.

    Args:
        ids: (T,) token ids.
        trained: Ranges of tokens that the loss covers, in order, without overlap.
        decode: Decodes ids, with special tokens written out.
    """
    trained = list(trained)
    borders = sorted({0, len(ids)}.union(*trained))
    pieces: list[Segment] = []
    before = ""
    for start, end in pairwise(borders):
        # From the first token: decoded alone, a piece would lose its leading blank.
        whole = decode(ids[:end])
        text = whole[len(before) :] if whole.startswith(before) else decode(ids[start:end])
        pieces.append(Segment(text, _within(start, trained)))
        before = whole
    return pieces


def message_text(message: Mapping[str, Any]) -> str:
    """Return a stored message's content and, if any, its tool calls as JSON."""
    calls = message.get("tool_calls")
    parts = [str(message["content"]), json.dumps(calls, ensure_ascii=False) if calls else ""]
    return "\n".join(filter(None, parts))


def shorten(text: str, limit: int) -> str:
    """Shorten a text to `limit` characters by omitting its middle; return how many were omitted."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} … {len(text) - limit:,} characters … {text[-tail:]}"


def escape_invisible(text: str) -> Iterator[tuple[str, bool]]:
    """Separate invisible or bidirectional control characters from a text.

    Yields:
        Text and false, or such a character's code, as "U+202E", and true.
    """
    start = 0
    for position, character in enumerate(text):
        if character not in _SHOWN and unicodedata.category(character) in _HIDDEN:
            if start < position:
                yield text[start:position], False
            yield f"U+{ord(character):04X}", True
            start = position + 1
    if start < len(text):
        yield text[start:], False


def one_line(text: str, limit: int) -> str:
    """Format a text for a terminal: one line, no control characters, shortened."""
    line = shorten(text, limit).replace("\n", "⏎").replace("\t", " ")
    return "".join(f"⟨{part}⟩" if hidden else part for part, hidden in escape_invisible(line))
