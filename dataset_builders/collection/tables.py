"""Rows and columns of the files that a collection writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dataset_builders.conversation import REASONING_FIELD, TRAIN_FIELD, Conversation, to_row
from dataset_builders.reasoning import with_tags

if TYPE_CHECKING:
    import pyarrow as pa

_SPEAKERS = {"user": "human", "assistant": "gpt"}


def messages_row(conversation: Conversation, *, model: bool) -> dict[str, Any]:
    """Convert a conversation to a row of the `messages` format.

    Args:
        conversation: The conversation.
        model: Whether the row names the model.
    """
    tools = bool(conversation.tools)
    return to_row(conversation, tool_calls=tools, names=tools, tools=tools, model=model)


def agentinstruct_row(conversation: Conversation) -> dict[str, Any]:
    """Convert a conversation to an AgentInstruct row: `loss` is null on human turns.

    The format has no field for reasoning, so it is put into the text, in tags.
    """
    turns = [
        {
            "from": _SPEAKERS[message.role],
            "loss": message.trained if message.role == "assistant" else None,
            "value": with_tags(message.content, message.reasoning),
        }
        for message in conversation.messages
    ]
    return {"conversations": turns, "id": conversation.id}


def agentinstruct_schema() -> pa.Schema:
    """Return the columns of AgentInstruct on the hub, with the features that `datasets` reads."""
    import pyarrow as pa

    text = {"dtype": "string", "_type": "Value"}
    turn = {"from": text, "loss": {"dtype": "bool", "_type": "Value"}, "value": text}
    features = {"conversations": {"feature": turn, "_type": "List"}, "id": text}
    turns = pa.struct([("from", pa.string()), ("loss", pa.bool_()), ("value", pa.string())])
    return pa.schema(
        [("conversations", pa.list_(turns)), ("id", pa.string())],
        # Same as written by `datasets`, whose import takes longer than everything else here.
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def messages_schema() -> pa.Schema:
    """Return the columns of a dialogue with tools: those of `to_row`."""
    import pyarrow as pa

    function = pa.struct([("name", pa.string()), ("arguments", pa.string())])
    call = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", function)])
    message = pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            (TRAIN_FIELD, pa.bool_()),
            ("tool_calls", pa.list_(call)),
            ("tool_call_id", pa.string()),
            ("name", pa.string()),
            (REASONING_FIELD, pa.string()),
        ]
    )
    names = ("id", "source", "task", "tools", "model")
    return pa.schema([("messages", pa.list_(message)), *((name, pa.string()) for name in names)])
