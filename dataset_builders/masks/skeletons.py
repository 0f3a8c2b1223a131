"""Locate the text of plain conversations without a second rendering.

For conversations that consist only of roles and contents, the template's own text usually depends
on the roles alone. It is taken from one probe per sequence of roles, in which every content is a
marker. If a rendering equals the template's text with the contents of the conversation in place of
the markers, the places of the contents follow from the lengths. If it does not (the template trims
the contents, say), the marks of `marking` decide.
"""

from __future__ import annotations

import sys
from itertools import accumulate, chain, zip_longest

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import ChatTemplate, Row
from dataset_builders.masks.marking import Part, Places
from dataset_builders.masks.spans import Dialogue, Span, core, thought_and_answer

_MAX_PATTERNS = 1_000


class Skeletons:
    """The text that one template writes around contents, for each sequence of roles.

    Args:
        template: The template.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[tuple[str, ...], list[str] | None] = {}

    def places(self, dialogue: Dialogue, text: str) -> Places | None:
        """Return the positions of the contents in the rendering; None if marks are needed.

        Args:
            dialogue: The conversation.
            text: Its rendering.
        """
        rows = dialogue.rows
        # All have a role and a content; more would be calls, names, reasoning.
        if dialogue.tools or any(len(row) != 2 for row in rows):
            return None
        pieces = self._pieces(tuple(row["role"] for row in rows))
        if pieces is None:
            return None
        contents: list[str] = [row["content"] for row in rows]
        if "".join(chain.from_iterable(zip_longest(pieces, contents, fillvalue=""))) != text:
            return None
        lengths = (
            len(piece) + len(before) for piece, before in zip(pieces, ["", *contents], strict=True)
        )
        return _places(dialogue, contents, list(accumulate(lengths)))

    def _pieces(self, roles: tuple[str, ...]) -> list[str] | None:
        """Return the template's text before, between and after the contents; None if it varies."""
        if roles not in self._known:
            if len(self._known) >= _MAX_PATTERNS:
                self._known.clear()
            self._known[roles] = self._probe(roles)
        return self._known[roles]

    def _probe(self, roles: tuple[str, ...]) -> list[str] | None:
        markers = [f"\ue000{number}\ue001" for number in range(len(roles))]
        rows: list[Row] = [
            {"role": role, "content": marker} for role, marker in zip(roles, markers, strict=True)
        ]
        try:
            rest = self._template.text(rows)
        except MaskError:
            return None
        pieces = []
        for marker in markers:
            piece, found, rest = rest.partition(marker)
            if not found:
                return None
            pieces.append(sys.intern(piece))
        pieces.append(rest)
        # A remaining marker means that a content is written twice.
        return None if any("\ue000" in piece for piece in pieces) else pieces


def _places(dialogue: Dialogue, contents: list[str], starts: list[int]) -> Places | None:
    trained = set(dialogue.trained)
    parts: list[Part] = []
    spans: dict[int, Span] = {}
    others: list[tuple[int, int, int | None]] = []
    for index, (content, begin) in enumerate(zip(contents, starts, strict=False)):
        start, end = core(content)
        if index not in trained:
            if start < end:
                others.append((index, begin + (start + end) // 2, begin + end))
            continue
        if start == end or thought_and_answer(content) is not None:
            return None
        spans[len(parts)] = Span(begin + start, begin + end)
        parts.append(Part(index, "words"))
    return Places(parts, spans, others)
