"""Making a mask visible: what the loss covers, in colour."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from dataset_builders.chat import Rendered
from dataset_builders.conversation import Conversation
from dataset_builders.tokens import Encoder, TokenReport

TRAINED_STYLE = "bold green"


def show(rendered: Rendered, *, colour: bool = True) -> Text:
    """A rendered conversation, its trained text in green, or in «» without colour."""
    shown = Text()
    position = 0
    for span in rendered.spans:
        shown.append(rendered.text[position : span.start])
        inside = rendered.text[span.start : span.end]
        shown.append(inside if colour else f"«{inside}»", style=TRAINED_STYLE)
        position = span.end
    shown.append(rendered.text[position:])
    return shown


def describe(conversation: Conversation, encoder: Encoder) -> dict[str, Any]:
    """What a machine may read of a conversation: text, spans, ids and labels."""
    rendered = encoder.renderer.render(conversation)
    row = next(encoder.encode([conversation], TokenReport()), None)
    return {
        "id": conversation.id,
        "source": conversation.source,
        "task": conversation.task,
        "text": rendered.text,
        "trained_spans": [list(span) for span in rendered.spans],
        "input_ids": row.input_ids.tolist() if row else [],
        "labels": row.labels.tolist() if row else [],
    }
