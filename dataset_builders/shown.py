"""Whether a template shows the model all that a conversation says.

A mask is no use over a context that lost its question. Templates drop a tool's answer, a
system turn, or the schemas of the tools, without a word; a model trained on the rest learns
to invent what it was not shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dataset_builders.chat_templates import ChatTemplate, Row
from dataset_builders.errors import MaskError
from dataset_builders.spans import unused_characters, with_content


def check_shown(
    template: ChatTemplate, rows: Sequence[Row], tools: list[Any] | None, text: str
) -> None:
    """Check that the rendering has the words of everyone but the assistant, and the tools.

    What the assistant said may be cut on purpose: old thoughts are.

    Raises:
        MaskError: Something is missing; `reason` is "left_out" or "tools_ignored".
    """
    position = 0
    for index, row in enumerate(rows):
        words = row["content"].strip()
        if not words or row["role"] == "assistant":
            continue
        found = _find(text, words, position)
        if found is None:
            raise _left_out(index, row["role"])
        position = max(position, found)
    if any(row["role"] == "tool" for row in rows):
        _check_results(template, rows, tools)
    if tools and template.text(rows) == text:
        raise MaskError(
            f"the chat template does not show the {len(tools)} tools of the conversation: "
            "training on calls of tools that are not shown teaches to invent them",
            "tools_ignored",
        )


def _find(text: str, words: str, position: int) -> int | None:
    """Behind the words, as they are or within JSON; what is moved is looked for everywhere."""
    for spelling in (words, json.dumps(words, ensure_ascii=False)[1:-1]):
        for start in (position, 0):
            if (found := text.find(spelling, start)) >= 0:
                return found + len(spelling)
    return None


def _check_results(template: ChatTemplate, rows: Sequence[Row], tools: list[Any] | None) -> None:
    # Results are short, and easily found elsewhere: each is replaced by what is nowhere.
    results = [i for i, row in enumerate(rows) if row["role"] == "tool" and row["content"].strip()]
    (mark,) = unused_characters("".join(row["content"] for row in rows), 1)
    replaced = list(rows)
    for index in results:
        replaced[index] = with_content(replaced[index], mark)
    if template.text(replaced, tools).count(mark) < len(results):
        raise _left_out(results[0], "tool")


def _left_out(index: int, role: str) -> MaskError:
    return MaskError(f"message {index}: the chat template leaves out this {role} turn", "left_out")
