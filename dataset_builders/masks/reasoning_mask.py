"""`reasoning: mask`: take the reasoning of trained turns out of the loss.

A turn's span then begins after the mark that closes the reasoning, such as `</think>`. The
reasoning remains in the text, as context of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from dataset_builders.conversation import Message
from dataset_builders.errors import MaskError
from dataset_builders.masks.spans import Rendered, Span, thought_and_answer
from dataset_builders.reasoning import CLOSING_MARK, OPENING_MARK

_CLOSING = re.compile(rf"\s*(?:{CLOSING_MARK})\s*", re.IGNORECASE)
_EMPTY = re.compile(rf"\s*(?:{OPENING_MARK})?\s*(?:{CLOSING_MARK})\s*", re.IGNORECASE)


def mask_reasoning(rendered: Rendered, messages: Sequence[Message]) -> Rendered:
    """Return a rendering whose spans begin after each turn's reasoning.

    An empty reasoning block, which a template writes before an answer without reasoning, is masked
    too. Reasoning that the template leaves out is not in the text, so nothing is masked for it.

    Args:
        rendered: The rendering.
        messages: The conversation.

    Raises:
        MaskError: The template shows the reasoning of a trained turn in other words, so that its
            place is unknown (`reasoning`).
    """
    trained = [index for index, message in enumerate(messages) if message.trained]
    left_out = {index for index, kind in rendered.left_out if kind == "reasoning"}
    spans: list[Span] = []
    for index, span in zip(trained, rendered.spans, strict=True):
        thought = "" if index in left_out else _thought_of(messages[index])
        spans.append(Span(_start(rendered.text, span, thought, index), span.end))
    masked = sum(old != new for old, new in zip(rendered.spans, spans, strict=True))
    return replace(rendered, spans=tuple(spans), reasoning_masked=masked)


def _thought_of(message: Message) -> str:
    if message.reasoning:
        return message.reasoning.strip()
    parts = thought_and_answer(message.content)
    return message.content[slice(*parts[0])] if parts else ""


def _start(text: str, span: Span, thought: str, index: int) -> int:
    """Return the position after a turn's reasoning."""
    if not thought:
        empty = _EMPTY.match(text, span.start, span.end)
        return empty.end() if empty else span.start
    found = text.find(thought, span.start, span.end)
    if found < 0:
        raise MaskError(
            f"message {index}: the chat template changes its reasoning, so it cannot be masked",
            "reasoning",
        )
    end = found + len(thought)
    closing = _CLOSING.match(text, end, span.end)
    return closing.end() if closing else end
