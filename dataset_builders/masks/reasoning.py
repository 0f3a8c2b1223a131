"""Detect how a chat template renders the assistant's reasoning.

Templates read a turn's reasoning from keys of different names (`reasoning_content` for Qwen3,
`thinking` for gpt-oss), or from a part of the content (Mistral's), and do not declare which. So the
template is probed. If it reads none, the reasoning becomes text in the content, in `<think>` tags,
which is what open models without a key of their own are trained on; but not where the template
marks thoughts in another way (Command-A's `<|START_THINKING|>`): there the model would learn to
output its thoughts as visible text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dataset_builders.errors import MaskError

Row = dict[str, Any]

REASONING = "_reasoning"
"""Our row key for reasoning, independent of the template's own name."""

AS_TEXT = "text"
"""Template reads no reasoning, and marks thoughts by `<think>` or not at all."""

REFUSED = "refused"
"""Template reads no reasoning, and marks thoughts in another format."""

_KEYS = ("reasoning_content", "reasoning", "thinking", "thought")
_PARTS = ("thinking parts", "thinking text parts")
_THOUGHT, _ANSWER = "qthought", "qanswer"
_OWN_MARKS = re.compile(r"<[^<>\s{}]*(?:think|thought)[^<>\s{}]*>|\[/?THINK\]|◁/?think▷", re.I)


def write_reasoning(row: Row, form: str) -> Row:
    """Move a row's reasoning to the place where the template reads it.

    Args:
        row: A message; its content is text, its reasoning under `REASONING`.
        form: Result of `find_form`.
    """
    if REASONING not in row:
        return row
    row = dict(row)
    reasoning = row.pop(REASONING)
    if form in _PARTS:
        thought: Any = reasoning if form == _PARTS[0] else [_text(reasoning)]
        parts = [{"type": "thinking", "thinking": thought}]
        return {**row, "content": [*parts, _text(row["content"])] if row["content"] else parts}
    return {**row, form: reasoning}


def find_form(render: Callable[[Sequence[Row]], str], template: str, probes: Sequence[Row]) -> str:
    """Detect how a template reads reasoning: a key, a kind of parts, `AS_TEXT` or `REFUSED`.

    Args:
        render: Renders rows in the template's own format.
        template: The template's text.
        probes: A turn of the user, one that calls a tool, and the call's result; empty if
            the template can write no call.
    """
    for form in (*_KEYS, *_PARTS):
        for rows in _probes(probes):
            try:
                text = render([write_reasoning(row, form) for row in rows])
            except MaskError:
                continue
            if _THOUGHT in text and not _is_dump(text):
                return form
    others = set(_OWN_MARKS.findall(template)) - {"<think>", "</think>"}
    return REFUSED if others and "</think>" not in template else AS_TEXT


def _probes(call: Sequence[Row]) -> Iterator[Sequence[Row]]:
    said: Row = {"role": "assistant", "content": _ANSWER, REASONING: _THOUGHT}
    yield [{"role": "user", "content": "qask"}, said]
    if call:
        # Without a result too: some templates show thoughts of the last turns only.
        thinking = {**call[1], REASONING: _THOUGHT}
        yield [call[0], thinking]
        yield [call[0], thinking, *call[2:]]


def _is_dump(text: str) -> bool:
    """Whether the template wrote the parts of a content as data."""
    return "'thinking'" in text or '"thinking"' in text


def _text(text: str) -> Row:
    return {"type": "text", "text": text}
