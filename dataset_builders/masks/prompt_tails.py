"""Prompt tail: the text that a template adds after the last message, before generation.

Between a message's content and that of the following assistant turn is text of the template. Its
first part, up to where generation begins, is the end of the prompt for that turn. Templates write a
different one after a tool result than after a user turn, and some write none. It is learned once
from the prompts of two probes; only if a conversation has another one is the prompt for that turn
rendered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import (
    CALL_PROBE,
    CALL_PROBE_TOOLS,
    ChatTemplate,
    Row,
)
from dataset_builders.masks.marking import Kind, find_places
from dataset_builders.masks.spans import Dialogue, num_alike

_MAX_GAPS = 10_000

_ID = "\ue000"  # Placeholder for the id of the call that the last message answers.

# Text that a prompt may add but past turns lack: an opened or empty thought.
_THOUGHT = re.compile(
    r"\s*(?:<[^<>]*(?:think|thought|channel)[^<>]*>[^<]*|\[/?THINK\]\s*)*\Z", re.IGNORECASE
)
_OPENING = re.compile(r"(?:<[^<>]*(?:think|thought)[^<>]*>|\[THINK\])\s*\Z", re.IGNORECASE)
_OPENING_OR_TAG = re.compile(rf"{_OPENING.pattern}|[<\[][^<>\[\]\s]*\Z", re.IGNORECASE)
_EMPTY = re.compile(r"<think>\s*</think>")


def is_opening(text: str) -> bool:
    """Whether a text only opens a thought."""
    return _OPENING.fullmatch(text) is not None


class PromptTails:
    """Prompt tails by the role of the last message.

    Args:
        template: The template.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._rendered: dict[tuple[str, Kind, str], str | None] = {}
        asked = (self.of([{"role": "user", "content": it}], None) for it in ("qask", "zdemand"))
        self._known: dict[str, str | None] = {"user": _shared(asked)}
        try:
            probe = template.rows(CALL_PROBE[:3])
        except MaskError:
            return
        results = [{**probe[2], "content": words} for words in ("qresult", "zoutcome")]
        tails = [self.of([*probe[:2], row], CALL_PROBE_TOOLS) for row in results]
        self._known["tool"] = _shared(tails)

    def of(self, rows: Sequence[Row], tools: list[Any] | None) -> str | None:
        """Return the prompt tail after the last of the rows."""
        dialogue = Dialogue(list(rows), (), tools)
        try:
            text = self._template.text(rows, tools, prompt=True)
            places = find_places(self._template, dialogue, text, prompt=True)
        except MaskError:
            return None
        end = places.end_of(len(rows) - 1) if places else None
        return _without_id(text[end:], rows[-1]) if end is not None else None

    def start(
        self, gap: str, dialogue: Dialogue, index: int, kind: Kind, known: bool = True
    ) -> int | None:
        """Locate where generation begins in the text between a message and the next turn.

        Args:
            gap: The text, from the last word of message `index - 1` to the turn's first.
            dialogue: The conversation.
            index: The turn.
            kind: What it begins with.
            known: Whether to use the probes' prompts, not the turn's own alone.

        Returns:
            Characters of the gap before the turn; None if no prompt shows it.
        """
        before = dialogue.rows[index - 1]
        plain = _without_id(gap, before)
        start = _start(plain, self._known.get(before["role"])) if known else None
        if start is None:
            key = (before["role"], kind, plain)
            if not known or key not in self._rendered:
                if len(self._rendered) >= _MAX_GAPS:
                    self._rendered.clear()
                self._rendered[key] = self.of(dialogue.rows[:index], dialogue.tools)
            tail = self._rendered[key]
            start = _start(plain, tail)
            if start is None and tail is not None:
                start = _start_off_prompt(plain, tail, kind)
        if start is None:
            return None
        return start + plain.count(_ID, 0, start) * (len(before.get("tool_call_id", "")) - 1)


def _start(gap: str, tail: str | None) -> int | None:
    return len(tail) if tail is not None and gap.startswith(tail) else None


def _start_off_prompt(gap: str, tail: str, kind: Kind) -> int | None:
    """Return the start of a turn that is rendered differently in history than in its prompt."""
    if kind == "words":
        return len(gap)
    alike = num_alike(tail, gap)
    pattern = _OPENING if kind == "reasoning" else _OPENING_OR_TAG
    cut = pattern.search(gap if kind == "reasoning" else gap[:alike])
    start = min(alike, cut.start()) if cut else alike
    if not _THOUGHT.match(tail, start):
        return None
    empty = _EMPTY.match(gap, start)
    return empty.end() if empty else start


def _shared(tails: Iterable[str | None]) -> str | None:
    """Return the common tail of prompts with different content, if independent of the content."""
    first, second = tails
    return first if first == second else None


def _without_id(text: str, row: Row) -> str:
    call_id = row.get("tool_call_id")
    return text.replace(call_id, _ID) if call_id else text
