"""Find code in a chat model's answer: in fences, or among prose."""

from __future__ import annotations

import re
import textwrap

from evaluators.tasks.general.code_parts import parsed

_OPENING = re.compile(r"(?P<fence>`{3,}|~{3,})[^\n`]*\n")
_MOST_FENCES = 40
_MOST_CHUNKS = 60
_INSIDE = re.compile(r"[ \t]|[)\]}#]|$")
"""Start of a line that continues the statement above it."""


def fenced_blocks(answer: str) -> list[str]:
    """Return the code of fenced blocks, in order; an unclosed one extends to the end.

    A fence within a docstring does not end its block: the block ends at the first fence up to
    which it is Python, and at the first one at all if it never is.
    """
    blocks, place = [], 0
    while opening := _OPENING.search(answer, place):
        code, place = _closed(answer, opening.end(), opening["fence"])
        blocks.append(code)
    return blocks


def _closed(answer: str, start: int, fence: str) -> tuple[str, int]:
    """Return a block's code, and the end of its closing fence."""
    ends = [each.start() for each in re.finditer(re.escape(fence), answer[start:])]
    ends = [start + end for end in ends[:_MOST_FENCES]] or [len(answer)]
    first = answer[start : ends[0]]
    for end in ends:
        code = answer[start:end]
        if parsed(code) or parsed(textwrap.dedent(code)):
            return code, end + len(fence)
    return first, ends[0] + len(fence)


def unfenced_code(answer: str) -> str:
    """Return the lines of an answer that are Python, without the prose around them."""
    chunks = _chunks(answer)[:_MOST_CHUNKS]
    kept, number = [], 0
    while number < len(chunks):
        for end in range(len(chunks), number, -1):
            code = "\n".join(chunks[number:end])
            if parsed(code):
                kept.append(code)
                number = end
                break
        else:
            number += 1
    return "\n".join(kept)


def _chunks(answer: str) -> list[str]:
    """Return unindented lines, each with the lines below that belong to it."""
    chunks: list[list[str]] = []
    for line in answer.split("\n"):
        if chunks and _INSIDE.match(line):
            chunks[-1].append(line)
        else:
            chunks.append([line])
    return ["\n".join(lines) for lines in chunks]
