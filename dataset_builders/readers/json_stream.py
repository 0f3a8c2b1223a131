"""Read JSON that may be large, truncated or damaged, in bounded memory.

The public copy of ShareGPT's V3 file is one array of hundreds of megabytes, and an
interrupted download of it is common: `json.load` then yields nothing at all. These
readers yield every complete item and say what is missing.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

MAX_ITEM_BYTES = 64 * 2**20
"""Largest single record, in bytes of a line or characters of an array item."""

_CHUNK = 2**20  # bytes per read
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()

# Where reading can resume after damage. A quote inside a JSON string is escaped, so this
# cannot match within the text of a turn.
_FIRST_KEYS = ("id", "conversations", "messages", "prompt", "instruction", "schema_version")
_FIRST_KEY_MAX = 64  # longest record key, in characters, that resuming searches for
_ITEM_START_MAX = 512  # characters; above the longest match, with every character escaped
_ITEM_KEYS = ("conversations", "messages", "prompt", "instruction", "steps", "traces", "request")
_SEPARATORS = re.compile(r"[ \t\r\n,]*")

# An error this close to the end of the text read so far may only mean that the rest
# has not been read: the longest token without quotes is `\ud83d\ude00`.
_TOKEN_MAX = 16

OnLost = Callable[[str], None]
"""Receives one line about damage: how many characters are lost, and where."""


class BadRecord(NamedTuple):
    """Placeholder for a record that could not be parsed, so that it can be counted.

    Attributes:
        reason: "bad_json", "not_utf8" or "too_large".
        detail: What was found.
    """

    reason: str
    detail: str


def iter_lines(handle: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Read JSON lines.

    Args:
        handle: File opened in binary mode. Byte order marks are skipped.

    Yields:
        Line number from 1 and the value, a `BadRecord` if the line is not JSON.
        Blank lines are left out.
    """
    number = 0
    while raw := handle.readline(MAX_ITEM_BYTES + 1):
        number += 1
        if len(raw) > MAX_ITEM_BYTES:
            _skip_line(handle, raw)
            yield number, BadRecord("too_large", f"line longer than {MAX_ITEM_BYTES:,} bytes")
            continue
        # The mark on any line: files joined by `cat` have one at each seam.
        if raw.removeprefix(_BOM).strip():
            yield number, parse_line(raw)


def _skip_line(handle: BinaryIO, raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = handle.readline(_CHUNK)


def parse_line(raw: bytes) -> Any:
    """Decode one JSON text; return a `BadRecord` if it cannot be."""
    cut = "" if raw.endswith(b"\n") else "; the file ends inside this line"
    try:
        return json.loads(raw.removeprefix(_BOM).decode())
    except UnicodeDecodeError as error:
        return BadRecord(
            "not_utf8", f"byte {error.start:,} of the line is not UTF-8 (Latin-1?){cut}"
        )
    except (ValueError, RecursionError) as error:
        return BadRecord("bad_json", f"not JSON: {error}{cut}")


class _Window:
    """The part of a text file that is buffered for parsing."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        # Invalid bytes become lone surrogates, one each: found again per item.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._base = 0
        self._start = _item_start(_FIRST_KEYS)
        self.text = ""
        self.pos = 0
        self.eof = False

    @property
    def offset(self) -> int:
        """Characters of the file before the current position."""
        return self._base + self.pos

    def grow(self) -> bool:
        """Read more, at least doubling the look-ahead; return False at the end or the limit."""
        ahead = len(self.text) - self.pos
        if self.eof or ahead > MAX_ITEM_BYTES:
            return False
        # Doubling keeps the repeated attempts at one large item linear in its size.
        raw = self._handle.read(min(max(_CHUNK, ahead), MAX_ITEM_BYTES - ahead + 1))
        self.eof = not raw
        self._base += self.pos
        self.text = self.text[self.pos :] + self._decoder.decode(raw, final=self.eof)
        self.pos = 0
        return True

    def open_array(self) -> None:
        """Move past a byte order mark and the opening bracket."""
        self.grow()
        self.pos = 1 if self.text.startswith("\ufeff") else 0
        self.peek()
        self.pos += 1

    def peek(self) -> str:
        """Skip white space and commas and return the next character, "" at the end."""
        while True:
            self.pos = self._skip(self.pos)
            if self.pos < len(self.text):
                return self.text[self.pos]
            if not self.grow():
                return ""

    def closes(self) -> bool:
        """Whether nothing follows the current character."""
        while self._skip(self.pos + 1) == len(self.text):
            if not self.grow():
                return True
        return False

    def _skip(self, start: int) -> int:
        match = _SEPARATORS.match(self.text, start)
        return match.end() if match else start

    def decode(self) -> tuple[Any, int] | None:
        """Decode the value here; None if it is damaged, too large or incomplete."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.pos)
            except json.JSONDecodeError as error:
                near_end = error.pos >= len(self.text) - _TOKEN_MAX
                more = near_end or error.msg.startswith("Unterminated string")
            except (ValueError, RecursionError):
                return None
            else:
                # At the very end of the text a number may be the first half of one.
                whole = self.eof and not isinstance(value, int | float)
                if end < len(self.text) or whole:
                    return value, end
                more = True
            if not more or not self.grow():
                return None

    def learn(self, item: Any) -> None:
        """Also resume after damage at the first key of this file's own items."""
        key = next(iter(item), "") if isinstance(item, dict) else ""
        if key and len(key) <= _FIRST_KEY_MAX and key not in _FIRST_KEYS:
            self._start = _item_start((*_FIRST_KEYS, key))

    def seek_item(self) -> None:
        """Move to the start of the next item, else to the end of the file."""
        while True:
            if match := self._start.search(self.text, self.pos):
                self.pos = match.start()
                return
            # Keep what may be the first half of a match.
            self.pos = max(self.pos, len(self.text) - _ITEM_START_MAX)
            if not self.grow():
                self.pos = len(self.text)
                return

    def take(self, value: Any, end: int) -> Any:
        """Move past a decoded value and return it, or a `BadRecord` if it cannot be used."""
        # isascii() is free, and ASCII text holds no invalid bytes.
        source = "" if self.text.isascii() else self.text[self.pos : end]
        self.pos = end
        try:
            source.encode()
        except UnicodeEncodeError as error:
            return BadRecord(
                "not_utf8", f"character {error.start:,} of the item is not UTF-8 (Latin-1?)"
            )
        return value


def _item_start(keys: Sequence[str]) -> re.Pattern[str]:
    # The key as written in the file, which may or may not escape non-ASCII characters.
    forms = {json.dumps(key, ensure_ascii=escaped) for key in keys for escaped in (True, False)}
    names = "|".join(map(re.escape, sorted(forms)))
    return re.compile(rf"\{{\s{{0,64}}(?:{names})\s{{0,64}}:")


def iter_array(handle: BinaryIO, on_lost: OnLost) -> Iterator[tuple[int, Any]]:
    """Read the items of a JSON array, recovering every complete one.

    After damage, reading resumes at the next object that holds turns and whose first key is that of
    a known format or of the file's first item.

    Args:
        handle: File opened in binary mode, starting with "[" (after white space or
            a byte order mark).
        on_lost: Called with one line per damaged place.

    Yields:
        Number of the item among those recovered, from 1, and its value.
    """
    window = _Window(handle)
    window.open_array()
    number, lost_from = 0, -1
    while char := window.peek():
        if char == "]" and window.closes():
            return
        start = window.offset
        # An unmatched bracket belongs to an item whose start is missing: not a value.
        found = window.decode()
        if found is None or (lost_from >= 0 and not _holds_turns(found[0])):
            lost_from = start if lost_from < 0 else lost_from
            window.pos += 1
            window.seek_item()
            continue
        if lost_from >= 0:
            on_lost(_describe_loss(lost_from, start, number))
            lost_from = -1
        number += 1
        if number == 1:
            window.learn(found[0])
        yield number, window.take(*found)
    on_lost(_describe_end(lost_from, window.offset, number))


def _holds_turns(value: Any) -> bool:
    # After damage the pattern may have found a tool call inside an item: it has an id too.
    if not isinstance(value, dict):
        return False
    # A list: the content of a message, which may have an id as well, is text.
    return any(key in value for key in _ITEM_KEYS) or isinstance(value.get("content"), list)


def _describe_loss(start: int, end: int, number: int) -> str:
    return (
        f"{end - start:,} characters lost after item {number:,} "
        f"(characters {start:,} to {end:,}): damaged"
    )


def _describe_end(start: int, end: int, number: int) -> str:
    if start < 0:
        return f"0 characters lost: the file ends after item {number:,} without a closing bracket"
    return (
        f"{end - start:,} characters lost after item {number:,} "
        f"(characters {start:,} to the end, {end:,}): cut short or damaged"
    )
