"""Check that a template shows the model everything in a conversation.

A correct mask does not help if the context lost its question. Templates silently drop tool results,
system turns, or the tools' schemas; a model trained on the rest learns to hallucinate what it was
not shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import ChatTemplate, Row
from dataset_builders.masks.spans import with_content

_MAX_PATTERNS = 10_000

_Pattern = tuple[tuple[str, bool, bool], ...]


class TemplateCompleteness:
    """Checks that a rendering contains all messages except the assistant's, and the tools.

    Assistant content may be cut on purpose: templates drop old thoughts.

    Args:
        template: The template.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._left_out: dict[_Pattern, int | None] = {}

    def __call__(self, rows: Sequence[Row], tools: list[Any] | None, text: str) -> None:
        """Check a rendering.

        Raises:
            MaskError: Something is missing; `reason` is "left_out" or "tools_ignored".
        """
        missing = self._find_left_out(rows, tools)
        if missing is None:
            missing = _find_altered(rows, text)
        if missing is not None:
            raise MaskError(
                f"message {missing}: the chat template omits this "
                f"{rows[missing]['role']} turn or a part of it",
                "left_out",
            )
        if tools and self._template.text(rows) == text:
            raise MaskError(
                f"the chat template does not show the {len(tools)} tools of the conversation: "
                "training on calls of tools that are not shown teaches the model to invent them",
                "tools_ignored",
            )

    def _find_left_out(self, rows: Sequence[Row], tools: list[Any] | None) -> int | None:
        """Return the first message that the template omits from conversations of this pattern.

        Contents may be short and occur elsewhere: each is replaced by a unique text.
        """
        pattern = tuple(
            (row["role"], bool(row["content"].strip()), "tool_calls" in row) for row in rows
        )
        if pattern not in self._left_out:
            if len(self._left_out) >= _MAX_PATTERNS:
                self._left_out.clear()
            self._left_out[pattern] = self._probe(rows, tools)
        return self._left_out[pattern]

    def _probe(self, rows: Sequence[Row], tools: list[Any] | None) -> int | None:
        marks = {
            index: f"\ue000{index}\ue001"
            for index, row in enumerate(rows)
            if row["role"] != "assistant" and row["content"].strip()
        }
        probe = [
            with_content(row, marks[index]) if index in marks else row
            for index, row in enumerate(rows)
        ]
        text = self._template.text(probe, tools)
        return next((index for index, mark in marks.items() if mark not in text), None)


def _find_altered(rows: Sequence[Row], text: str) -> int | None:
    position = 0
    for index, row in enumerate(rows):
        words = row["content"].strip()
        if words and row["role"] != "assistant":
            found = _find(text, words, position)
            if found is None:
                return index
            position = max(position, found)
    return None


def _find(text: str, words: str, position: int) -> int | None:
    """Return the position after the words, literal or JSON-escaped; moved text counts."""
    for as_json in (False, True):
        spelling = json.dumps(words, ensure_ascii=False)[1:-1] if as_json else words
        for start in (position, 0):
            if (found := text.find(spelling, start)) >= 0:
                return found + len(spelling)
    return None
