"""Making a mask visible: what the loss covers, in colour."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text

from dataset_builders.chat import ChatRenderer, Rendered
from dataset_builders.conversation import Conversation
from dataset_builders.tokens import Encoder, TokenReport, TokenRow

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


def describe(
    conversation: Conversation,
    tokenizer: Any,
    renderer: ChatRenderer,
    end_of_turn: Iterable[str] = (),
) -> dict[str, Any]:
    """What a machine may read of a conversation: text, spans, ids and labels."""
    rendered = renderer.render(conversation)
    row = encode_one(conversation, tokenizer, end_of_turn)
    return {
        "id": conversation.id,
        "source": conversation.source,
        "task": conversation.task,
        "text": rendered.text,
        "trained_spans": [list(span) for span in rendered.spans],
        "input_ids": row.input_ids.tolist() if row else [],
        "labels": row.labels.tolist() if row else [],
    }


def encode_one(
    conversation: Conversation, tokenizer: Any, end_of_turn: Iterable[str] = ()
) -> TokenRow | None:
    """Ids and labels of one conversation of any length; none if nothing is trained."""
    encoder = Encoder(tokenizer, max_length=2**31 - 1, end_of_turn=end_of_turn)
    return next(encoder.encode([conversation], TokenReport()), None)
