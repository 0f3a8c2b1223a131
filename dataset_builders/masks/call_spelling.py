"""Find out how a chat template spells tool calls, certified by a round trip.

A template does not declare how the calls that it writes are read back, and tokenizers with a
response template of their own are rare. So a call is rendered as a trained turn, and a spelling is
used only if it reads exactly this call from the text that a model would have to generate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError
from dataset_builders.formats.spelled_calls import OWN, CallSpelling, declared_spellings
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
_NEXT = replace(_CALL, id="qcallid10")


def find_call_spelling(tokenizer: Any, renderer: ChatRenderer) -> CallSpelling | None:
    """Return the spelling that reads the calls that a tokenizer's chat template writes.

    Candidates are the tokenizer's own response template, the declared spellings, and those that an
    imported TRL declares.

    Args:
        tokenizer: The tokenizer.
        renderer: Its renderer.

    Returns:
        The first spelling that reads a rendered call exactly, with `several` if it also reads two
        calls of one turn; None if the template cannot render a call as a trained turn, or no
        spelling reads it.

    Raises:
        ConfigError: The installed transformers has no response parser.
    """
    said, end = _written(renderer, (_CALL,))
    both, _ = _written(renderer, (_CALL, _NEXT))
    for spelling in _candidates(tokenizer, end) if said else ():
        if _num_read(spelling, said) == 1:
            found = copy(spelling)
            found.several = _num_read(spelling, both) == 2
            return found
    return None


def _written(renderer: ChatRenderer, calls: tuple[ToolCall, ...]) -> tuple[str, str]:
    """Return a turn with the calls as a model has to write it, and its end token; else ""."""
    messages = (
        Message("user", "qask"),
        Message("assistant", "", True, calls),
        *(Message("tool", "qresult", tool_call_id=c.id, name=c.name) for c in calls),
        Message("assistant", "qanswer"),
    )
    try:
        rendered = renderer.render(Conversation.create(messages, tools=PROBE_TOOLS))
    except MaskError:
        return "", ""
    (span,) = rendered.spans
    turn = rendered.text[span.start : span.end]
    end = max((e for e in renderer.end_tokens if turn.endswith(e)), key=len, default="")
    return turn.removesuffix(end), end


def _candidates(tokenizer: Any, end: str) -> Iterator[CallSpelling]:
    yield from _of_template(OWN, getattr(tokenizer, "response_template", None), end)
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


def _num_read(spelling: CallSpelling, said: str) -> int:
    """Return how many probe calls a spelling reads in a turn; 0 if it reads anything else."""
    turn = spelling.read(said, PROBE_TOOLS)
    if turn.malformed or not all(
        call.name == _CALL.name and json.loads(call.arguments) == _ARGUMENTS for call in turn.calls
    ):
        return 0
    return len(turn.calls)
