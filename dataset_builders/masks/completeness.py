"""Whether a template shows the model all that a conversation says.

A mask is no use over a context that lost its question. Templates drop a tool's answer, a
system turn, or the schemas of the tools, without a word; a model trained on the rest learns
to invent what it was not shown.
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
    """Checks that renderings have the words of everyone but the assistant, and the tools.

    What the assistant said may be cut on purpose: old thoughts are.

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
                f"message {missing}: the chat template leaves out this "
                f"{rows[missing]['role']} turn or a part of it",
                "left_out",
            )
        if tools and self._template.text(rows) == text:
            raise MaskError(
                f"the chat template does not show the {len(tools)} tools of the conversation: "
                "training on calls of tools that are not shown teaches to invent them",
                "tools_ignored",
            )

    def _find_left_out(self, rows: Sequence[Row], tools: list[Any] | None) -> int | None:
        """The first message that the template leaves out of conversations of this pattern.

        Words may be short, and easily found elsewhere: each is replaced by what is nowhere.
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
    """Behind the words, as they are or within JSON; what is moved is looked for everywhere."""
    for as_json in (False, True):
        spelling = json.dumps(words, ensure_ascii=False)[1:-1] if as_json else words
        for start in (position, 0):
            if (found := text.find(spelling, start)) >= 0:
                return found + len(spelling)
    return None
