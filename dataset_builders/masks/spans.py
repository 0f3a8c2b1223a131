"""Spans of a rendering, and the conversation data passed through the mask search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import Row
from dataset_builders.masks.reasoning import REASONING

_PRIVATE_USE = range(0xE000, 0xF900)
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)

Way = Literal["marks", "sentinels"]


class Span(NamedTuple):
    """Half-open range of characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: What the tokenizer sees; special tokens are written out.
        spans: Trained ranges of `text`, in order, without overlap.
        literals: Ranges where message content spells a control token, such as `<|im_end|>` quoted
            by a user. They must be encoded as plain characters, or data could open a turn. In
            order, without overlap.
        way: How the turns were found: "marks", which the template's skeleton may stand in
            for, or "sentinels" where a mark was lost.
        certified: Whether a second, independent way found the same spans.
        off_prompt: Trained turns before which `text` is not the prompt that generation
            would start from, since the template renders history differently from the current turn.
            Counted where the rendering is certified, else 0.
        left_out: Message and kind ("reasoning", "words" or "call") of each part of a trained
            turn that the template does not show, so that it is not trained.
        reasoning_masked: Trained turns whose reasoning, shown, is outside of their span.
    """

    text: str
    spans: tuple[Span, ...]
    literals: tuple[Span, ...] = ()
    way: Way = "marks"
    certified: bool = False
    off_prompt: int = 0
    left_out: tuple[tuple[int, str], ...] = ()
    reasoning_masked: int = 0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages as a template takes them, with the turns to locate.

    Attributes:
        rows: The messages.
        trained: Indices of the trained ones.
        tools: Function schemas.
    """

    rows: list[Row]
    trained: tuple[int, ...]
    tools: list[Any] | None = None


def with_content(row: Row, content: str) -> Row:
    """Return the message with other content."""
    return {**row, "content": content}


def words_of(row: Row) -> str:
    """Return a turn's reasoning and content, without its calls."""
    return f"{row.get(REASONING, '')}{row['content']}"


def plain_turn(content: str) -> Row:
    """Return an assistant turn with content only."""
    return {"role": "assistant", "content": content}


def unused_characters(text: str, count: int) -> list[str]:
    """Return private-use characters that do not occur in a text.

    Raises:
        MaskError: Too few are unused.
    """
    found: list[str] = []
    for code in _PRIVATE_USE:
        if chr(code) not in text:
            found.append(chr(code))
            if len(found) == count:
                return found
    raise MaskError("the conversation uses all private-use characters, none is left as a mark")


def core(content: str) -> Span:
    """Return the range of the content without outer white space; empty, at the end, if blank."""
    if len(content.strip()) == len(content):
        return Span(0, len(content))
    start = len(content) - len(content.lstrip())
    return Span(start, max(start, len(content.rstrip())))


def thought_and_answer(content: str) -> tuple[Span, Span] | None:
    """Return the ranges of a thought that opens the content, and of the answer after it."""
    opened = _THOUGHT.match(content)
    if opened is None:
        return None
    thought, answer = core(opened[1]), core(content[opened.end() :])
    before, behind = opened.start(1), opened.end()
    return (
        Span(before + thought.start, before + thought.end),
        Span(behind + answer.start, behind + answer.end),
    )


def marked(content: str, marks: Sequence[str], span: Span) -> str:
    """Return the content with a mark before and after a range of it."""
    opening, closing = marks
    start, end = span
    return f"{content[:start]}{opening}{content[start:end]}{closing}{content[end:]}"


def mark_call(call: Row, marks: Sequence[str]) -> tuple[Row, int]:
    """Mark the text of a tool call: strings within the arguments, or else its name.

    Returns:
        The call and the number of pairs of marks.
    """
    function = call["function"]
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, str):
            count += 1
            return marked(value, marks, Span(0, len(value)))
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    changed = {**function, "arguments": walk(function["arguments"])}
    if not count:
        changed, count = {**function, "name": walk(function["name"])}, 1
    return {**call, "function": changed}, count


def read_marks(text: str, marks: Sequence[str]) -> tuple[str, list[Span]] | None:
    """Return a text without marks, and the marked ranges; None if the marks do not pair up."""
    opening, closing = marks
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for piece in text.split(opening):
        inside, closed, outside = piece.partition(closing)
        # Before the first mark nothing is open, after each of the others one pair is.
        if bool(closed) != bool(pieces) or closing in outside:
            return None
        if closed:
            spans.append(Span(length, length + len(inside)))
        pieces.append(inside + outside)
        length += len(inside) + len(outside)
    return "".join(pieces), spans


def first_of(tokens: Sequence[str], text: str, start: int, stop: int | None = None) -> Span | None:
    """Return the first position at or after `start` where one of the tokens occurs."""
    if len(tokens) == 1:
        position = text.find(tokens[0], start, stop)
        return Span(position, position + len(tokens[0])) if position >= 0 else None
    found = [
        Span(position, position + len(token))
        for token in tokens
        if (position := text.find(token, start, stop)) >= 0
    ]
    # The longest of those that begin together: one token may begin with another.
    return min(found, key=lambda span: (span.start, -span.end), default=None)


def words(value: Any) -> Iterator[str]:
    """All texts within a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from words(item)
    elif isinstance(value, list):
        for item in value:
            yield from words(item)


def num_alike(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of the common prefix of two sequences."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def is_blank(row: Row) -> bool:
    """Whether a turn has neither text nor calls."""
    return not words_of(row).strip() and "tool_calls" not in row


def leading(row: Row) -> int:
    """Return the longest white space that a turn's text, or its thought, may begin with."""
    if REASONING in row:  # Of a thought that is left out, white space may be left.
        return len(row[REASONING])
    if row["content"][:1].isalnum():  # As most begin: with neither white space nor a thought.
        return 0
    start = core(row["content"]).start
    parts = thought_and_answer(row["content"])
    return start if parts is None else max(start, *(part.start for part in parts))
