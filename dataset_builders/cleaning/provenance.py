"""Identify which model wrote a conversation, for the paper's 1:4 ratio of GPT-4 to GPT-3.5.

The public ShareGPT file does not say. Exports that do spell the name in many ways.
FastChat takes a conversation without a name for GPT-4's, and so all of the public file;
here it stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import Conversation, metadata_text
from dataset_builders.readers.building import check_unicode
from dataset_builders.readers.report import SourceReport

MODEL_FIELD = "model"
"""Key of a record that names the model."""

_LABEL = re.compile(r"(?i)^\s*model\s*[:=]\s*")
# Anchored: a model fine-tuned on GPT-4's answers may carry its name, too. What ChatGPT's
# menu called "Default" and "Legacy" had the slug text-davinci-002-render, with endings.
_MAKER = r"(?i)^(?:openai[\s/:_-]*|(?:default|legacy)\s*\(\s*)?"
_GPT_4 = re.compile(_MAKER + r"gpt[\s_-]?4(?![.\d]*\d|o\b)")
_GPT_35 = re.compile(_MAKER + r"(?:gpt[\s_-]?3[._]?5|text-davinci-002-render)")


def normalise_model(name: str) -> str:
    """Return "gpt-4" or "gpt-3.5" for any of their spellings, else the name unchanged.

    Dated and sized versions count as the model; "gpt-4o" and "gpt-4.1" are different models, and
    "chatgpt" is ambiguous.
    """
    name = _LABEL.sub("", name).strip()
    if _GPT_35.match(name):
        return "gpt-3.5"
    return "gpt-4" if _GPT_4.match(name) else name


def model_of(record: Mapping[str, Any]) -> str:
    """Return the author model as a record spells it, "" if it names none.

    Raises:
        RecordDroppedError: It holds a lone surrogate (`not_unicode`).
    """
    name = metadata_text(record.get(MODEL_FIELD))
    check_unicode(name, MODEL_FIELD)
    return name


def attributed(
    conversations: Iterable[Conversation], default: str, report: SourceReport
) -> Iterator[Conversation]:
    """Set the normalised author model of conversations, and count them by it.

    Args:
        conversations: Conversations, the model as their record spells it.
        default: Name for a conversation whose record names none: that of its source.
        report: Counts them by model as they pass.
    """
    for conversation in conversations:
        name = normalise_model(conversation.model or default)
        report.count_model(name)
        if name != conversation.model:
            conversation = replace(conversation, model=name)
        yield conversation
