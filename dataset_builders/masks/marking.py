"""Locate the text of a conversation in its rendering by inserting marks.

Characters that occur nowhere in the conversation are put around every part of a trained turn
(its reasoning, its words, the texts of its calls) and into the words of every other message,
each with the number of the part. If the rendering without the marks equals the plain one, they show
where each part is, and which parts the template omits.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from dataset_builders.masks.chat_templates import ChatTemplate, Row
from dataset_builders.masks.reasoning import REASONING
from dataset_builders.masks.spans import Dialogue, Span, core, thought_and_answer, unused_characters

Kind = Literal["reasoning", "words", "call"]


class Part(NamedTuple):
    """A part of a message.

    Attributes:
        message: Index of the message.
        kind: What it is.
    """

    message: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Found:
    """The trained turns of a rendering.

    Attributes:
        spans: Their spans.
        left_out: Message and kind of each part of them that the template leaves out.
    """

    spans: list[Span]
    left_out: list[tuple[int, Kind]]


class Places:
    """Positions of a conversation's parts in its rendering.

    Args:
        parts: All parts of the trained turns, in order.
        spans: Place of each part that is shown, by its number in `parts`.
        others: Message, position and end of the words of the other messages; the end is none
            where the template writes the words in another way.
    """

    def __init__(
        self,
        parts: list[Part],
        spans: dict[int, Span],
        others: list[tuple[int, int, int | None]],
    ) -> None:
        self._shown: dict[int, list[tuple[Span, Kind]]] = {}
        self._missing: dict[int, list[Kind]] = {}
        for number, part in enumerate(parts):
            if number in spans:
                self._shown.setdefault(part.message, []).append((spans[number], part.kind))
            else:
                self._missing.setdefault(part.message, []).append(part.kind)
        # Of a call's strings only the first is distinguished.
        self._ends = {message: end for message, _, end in others}
        for message, shown in self._shown.items():
            self._ends[message] = max(span.end for span, _ in shown)
        # Where a part of which message stands, in the order of the rendering.
        self._at = [(position, message) for message, position, _ in others]
        self._at += [(s.start, message) for message, shown in self._shown.items() for s, _ in shown]
        self._at.sort()

    def words(self, message: int) -> Span | None:
        """Return the span from a turn's first to its last shown word; None if none is shown."""
        shown = self._shown.get(message)
        if shown is None:
            return None
        if len(shown) == 1:
            return shown[0][0]
        return Span(min(s.start for s, _ in shown), max(s.end for s, _ in shown))

    def first_kind(self, message: int) -> Kind:
        """Return the kind of part that a shown turn begins with."""
        return min(self._shown[message])[1]

    def missing(self, message: int) -> list[Kind]:
        """Return the parts of a trained turn that the template omits."""
        return self._missing.get(message, [])

    def end_of(self, message: int) -> int | None:
        """Return the end of a message's content; None if unknown."""
        return self._ends.get(message)

    def inside(self, span: Span, message: int) -> int | None:
        """Return another message whose text is within a span; None if there is none."""
        for position, other in self._at[bisect_left(self._at, (span.start, -1)) :]:
            if position >= span.end:
                break
            if other != message:
                return other
        return None


def find_places(
    template: ChatTemplate, dialogue: Dialogue, text: str, prompt: bool = False
) -> Places | None:
    """Locate the parts; None if the template does not preserve the marks.

    Args:
        template: The template.
        dialogue: The conversation.
        text: Its rendering.
        prompt: Whether the rendering ends with a generation prompt.
    """
    # Some templates inspect other messages' content, so these stay unmarked if necessary.
    for others in (True, False):
        marker = _Marker(text, dialogue)
        marked = template.text(marker.rows(others), dialogue.tools, prompt=prompt)
        places = marker.read(marked, text)
        if places is not None:
            return places
    return None


class _Marker:
    def __init__(self, text: str, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._lead, self._open, self._close, self._point = unused_characters(text, 4)
        self._parts: list[Part] = []
        self._points: list[tuple[int, str]] = []  # message, and its words from the mark on
        self._names: set[int] = set()  # parts that are a function's name

    def rows(self, others: bool) -> list[Row]:
        trained = set(self._dialogue.trained)
        return [
            self._turn(index, row) if index in trained else self._other(index, row, others)
            for index, row in enumerate(self._dialogue.rows)
        ]

    def read(self, marked: str, text: str) -> Places | None:
        mark = re.compile(f"{self._lead}([0-9]+)([{self._open}{self._close}{self._point}])")
        pieces: list[str] = []
        length = end = 0
        opened: dict[int, int] = {}
        spans: dict[int, Span] = {}
        others: list[tuple[int, int, int | None]] = []
        for match in mark.finditer(marked):
            pieces.append(marked[end : match.start()])
            length += match.start() - end
            end = match.end()
            number = int(match[1])
            if match[2] == self._point:
                message, rest = self._points[number]
                others.append((message, length, _end_of(text, length, rest)))
            elif number in spans and number in self._names:
                continue  # Some templates repeat the name with the call's result.
            elif match[2] == self._open:
                if number in opened:
                    return None
                opened[number] = length
            elif number in spans or number not in opened:
                return None
            else:
                spans[number] = Span(opened[number], length)
        if opened.keys() != spans.keys() or "".join((*pieces, marked[end:])) != text:
            return None
        return Places(self._parts, spans, others)

    def _other(self, index: int, row: Row, others: bool) -> Row:
        words = core(row["content"])
        if not others or words.start == words.end:
            return row
        # In the middle, since templates look at how contents begin and end.
        middle = (words.start + words.end) // 2
        content: str = row["content"]
        mark = f"{self._lead}{len(self._points)}{self._point}"
        self._points.append((index, content[middle : words.end]))
        return {**row, "content": f"{content[:middle]}{mark}{content[middle:]}"}

    def _turn(self, index: int, row: Row) -> Row:
        changed = dict(row)
        before = len(self._parts)
        if REASONING in row:
            thought = row[REASONING]
            changed[REASONING] = self._mark(index, "reasoning", thought, core(thought))
        changed["content"] = self._content(index, row["content"])
        if "tool_calls" in row:
            changed["tool_calls"] = [self._call(index, call) for call in row["tool_calls"]]
        if len(self._parts) == before:  # It is empty.
            content = row["content"]
            changed["content"] = self._mark(index, "words", content, core(content), blank=True)
        return changed

    def _content(self, index: int, content: str) -> str:
        parts = thought_and_answer(content)
        if parts is None:
            return self._mark(index, "words", content, core(content))
        thought, answer = parts
        # From the end, since a mark shifts the text after it.
        content = self._mark(index, "words", content, answer)
        return self._mark(index, "reasoning", content, thought)

    def _call(self, index: int, call: Row) -> Row:
        function = call["function"]
        before = len(self._parts)
        changed = {**function, "arguments": self._walk(index, function["arguments"])}
        if len(self._parts) == before:
            self._names.add(before)
            changed = {**function, "name": self._walk(index, function["name"])}
        return {**call, "function": changed}

    def _walk(self, index: int, value: Any) -> Any:
        if isinstance(value, str):
            return self._mark(index, "call", value, Span(0, len(value)), blank=True)
        if isinstance(value, dict):
            return {key: self._walk(index, item) for key, item in value.items()}
        return [self._walk(index, item) for item in value] if isinstance(value, list) else value

    def _mark(self, index: int, kind: Kind, content: str, span: Span, blank: bool = False) -> str:
        start, end = span
        if start == end and not blank:
            return content
        number = f"{self._lead}{len(self._parts)}"
        self._parts.append(Part(index, kind))
        return (
            f"{content[:start]}{number}{self._open}{content[start:end]}"
            f"{number}{self._close}{content[end:]}"
        )


def _end_of(text: str, position: int, rest: str) -> int | None:
    """Return the position after the rest of some words, literal or JSON-escaped; None if absent."""
    if text.startswith(rest, position):
        return position + len(rest)
    spelling = json.dumps(rest, ensure_ascii=False)[1:-1]
    return position + len(spelling) if text.startswith(spelling, position) else None


def missing_words(row: Row, shown: str) -> Iterator[Kind]:
    """Return the parts of a turn whose words its span does not contain.

    For turns that were located without marks. Runs of white space count as one blank.

    Args:
        row: The turn.
        shown: The template's rendering of it.
    """
    shown = " ".join(shown.split())
    content = row["content"]
    parts = thought_and_answer(content)
    pairs: list[tuple[Kind, str]] = [("reasoning", row.get(REASONING, ""))]
    if parts is None:
        pairs.append(("words", content))
    else:
        kinds: tuple[Kind, Kind] = ("reasoning", "words")
        pairs += [(kind, content[slice(*part)]) for kind, part in zip(kinds, parts, strict=True)]
    for kind, words in pairs:
        if " ".join(words.split()) not in shown:
            yield kind
