"""Convert tool calls to text, for chat templates without tool support.

Llama-2's template, the paper's, has neither tool calls nor a role for their results, so a
trajectory of calls cannot be rendered in it. Written as text in tags, the convention that Hermes
introduced and Qwen's templates follow, the same trajectory works with every template:

- `tools` become a list in `<tools>` at the end of the system turn;
- a call becomes `{"name": ..., "arguments": ...}` in `<tool_call>`, after the turn's text;
- a result becomes a user turn in `<tool_response>`.

Prompts at inference must use the same text form: `evaluators.models.local_calls` shows a local
model tools in it where the chat template has none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dataset_builders.conversation import Conversation, Message
from dataset_builders.formats.shapes import merge_turns

STEP = "calls_as_text"
"""Name under which a report counts the turns that were rewritten."""

_TOOLS = """\
You can call these functions, one JSON schema a line:
<tools>
{schemas}
</tools>
To call one, write:
<tool_call>
{{"name": "its name", "arguments": {{"argument": "value"}}}}
</tool_call>
Its result follows in <tool_response>."""


def stream_calls_as_text(
    conversations: Iterable[Conversation], changed: Counter[str]
) -> Iterator[Conversation]:
    """Convert conversations lazily; see `calls_as_text`.

    Args:
        conversations: The conversations.
        changed: Receives the number of turns rewritten, under `STEP`.
    """
    for conversation in conversations:
        turns = sum(map(_is_rewritten, conversation.messages)) + bool(conversation.tools)
        if turns:
            changed[STEP] += turns
            conversation = calls_as_text(conversation)
        yield conversation


def calls_as_text(conversation: Conversation) -> Conversation:
    """Convert tools, calls and results to text; which turns are trained on does not change.

    Returns:
        A conversation without tools, calls and tool turns. User turns that become consecutive are
        joined with an empty line.
    """
    messages = [_rewritten(message) for message in conversation.messages]
    if conversation.tools:
        schemas = "\n".join(
            json.dumps(schema, ensure_ascii=False) for schema in json.loads(conversation.tools)
        )
        system = _TOOLS.format(schemas=schemas)
        if messages[0].role == "system":
            first = messages.pop(0).content
            system = f"{first}\n\n{system}" if first else system
        messages.insert(0, Message("system", system))
    merged, _ = merge_turns(messages)
    return replace(conversation, messages=tuple(merged), tools="")


def _is_rewritten(message: Message) -> bool:
    return message.role == "tool" or bool(message.tool_calls)


def _rewritten(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    if not message.tool_calls:
        return message
    calls = "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, '
        f'"arguments": {call.arguments}}}\n</tool_call>'
        for call in message.tool_calls
    )
    content = f"{message.content}\n\n{calls}" if message.content else calls
    return replace(message, content=content, tool_calls=())
