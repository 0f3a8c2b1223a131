"""Find out how a chat template spells tool calls, certified by a round trip.

A template does not declare how the calls that it writes are read back, and tokenizers with a
response template of their own are rare. So a call is rendered as a trained turn, and a spelling is
used only if it reads exactly this call from the text that a model would have to generate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError
from dataset_builders.formats.spelled_calls import CallSpelling, declared_spellings
from dataset_builders.masks.chat import ChatRenderer

_ARGUMENTS = {
    "text": "3",  # Of raw values, only the schema says that this is no number.
    "note": 'it\'s "\\d"',  # Some templates do not escape what ends a text.
    "count": 2,
    "flag": False,
    "deep": {"say": 'the "b" of {c}', "items": [1, "two"]},
}
_TYPES = {
    "text": "string",
    "note": "string",
    "count": "integer",
    "flag": "boolean",
    "deep": "object",
}
PROBE_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "qfunction",
                "description": "Does it.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": kind, "description": "What."} for key, kind in _TYPES.items()
                    },
                    "required": list(_TYPES),
                },
            },
        }
    ]
)
# Nine letters or digits, as Mistral's templates require.
_CALL = ToolCall("qfunction", json.dumps(_ARGUMENTS), "qcallid09")
PROBE = Conversation.create(
    (
        Message("user", "qask"),
        Message("assistant", "", True, (_CALL,)),
        Message("tool", "qresult", tool_call_id="qcallid09"),
        Message("assistant", "qanswer"),
    ),
    tools=PROBE_TOOLS,
)


def find_call_spelling(tokenizer: Any, renderer: ChatRenderer) -> CallSpelling | None:
    """Return the spelling that reads the calls that a tokenizer's chat template writes.

    Candidates are the tokenizer's own response template, the declared spellings, and those that an
    imported TRL declares.

    Args:
        tokenizer: The tokenizer.
        renderer: Its renderer.

    Returns:
        The first spelling that reads a rendered call exactly; None if the template cannot render
        calls as trained turns, or no spelling reads them.

    Raises:
        ConfigError: The installed transformers has no response parser.
    """
    try:
        rendered = renderer.render(PROBE)
    except MaskError:
        return None
    span = rendered.spans[0]
    turn = rendered.text[span.start : span.end]
    end = max((e for e in renderer.end_tokens if turn.endswith(e)), key=len, default="")
    said = turn.removesuffix(end)
    return next((each for each in _candidates(tokenizer, end) if _reads(each, said)), None)


def _candidates(tokenizer: Any, end: str) -> Iterator[CallSpelling]:
    yield from _of_template("tokenizer", getattr(tokenizer, "response_template", None), end)
    yield from declared_spellings()
    # Importing TRL takes seconds; where it is the trainer it has been imported.
    trl = sys.modules.get("trl.chat_template_utils")
    for name, value in list(vars(trl).items()) if trl else ():
        if name.endswith("_template"):
            yield from _of_template(f"trl/{name.removesuffix('_template')}", value, end)


def _of_template(name: str, template: object, end: str) -> Iterator[CallSpelling]:
    """Yield the spelling of a response template, without and with the turn's end token."""
    fields = template.get("fields") if isinstance(template, Mapping) else None
    field = fields.get("tool_calls") if isinstance(fields, Mapping) else None
    if isinstance(field, Mapping):
        for closing in dict.fromkeys(("", end)):
            try:
                yield CallSpelling(name, field, closing)
            except ValueError:  # Of a later release of transformers.
                return


def _reads(spelling: CallSpelling, said: str) -> bool:
    turn = spelling.read(said, PROBE_TOOLS)
    if len(turn.calls) != 1 or turn.malformed:
        return False
    call = turn.calls[0]
    return call.name == _CALL.name and json.loads(call.arguments) == _ARGUMENTS
