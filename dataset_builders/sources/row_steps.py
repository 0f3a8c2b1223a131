"""Steps that decide what is trained: `train_on`, `reasoning`, `rows`, `keep_last_turns`.

`train_on` and `reasoning: drop` change the conversation while it is read. The others need the
chat template and are carried out when it is encoded; they travel with it as `RowOptions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError
from dataset_builders.reasoning import begins_with_thought, spoken
from dataset_builders.row_options import RowOptions
from dataset_builders.sources.spec import SourceSpec
from dataset_builders.sources.turn_selection import find_selector, select_turns, selector_digest

UNTRAINED = "train_on"
"""Counter of turns that `train_on` takes out of training."""

DROPPED = "reasoning"
"""Counter of turns whose reasoning is dropped."""

EMPTIED = "reasoning_only"
"""Counter of trained turns that held nothing else, and are no longer trained."""

DEFAULTS = {"train_on": "all", "reasoning": "train", "rows": "auto", "keep_last_turns": None}
"""Settings of the steps that change nothing."""


def changed_settings(spec: SourceSpec) -> dict[str, Any]:
    """Return the settings of the steps that differ from the default, for a fingerprint.

    A selector is represented by its content: an edited function is another setting.

    Raises:
        ConfigError: There is no such selector.
    """
    found = {
        name: getattr(spec, name)
        for name, default in DEFAULTS.items()
        if getattr(spec, name) != default
    }
    if "train_on" in found:
        found["train_on"] = selector_digest(spec.train_on)
    return found


def check_row_steps(spec: SourceSpec) -> None:
    """Check the settings of the steps.

    Raises:
        ConfigError: There is no such selector, or two settings exclude each other.
    """
    find_selector(spec.train_on, spec.path)
    if spec.keep_last_turns is not None and spec.rows == "conversation":
        raise ConfigError(
            f"{spec.label}: keep_last_turns: found with rows: conversation, expected rows: auto or "
            "per_turn: the turns of one row would need different histories"
        )


def stream_row_steps(
    conversations: Iterable[Conversation], spec: SourceSpec, changed: Counter[str]
) -> Iterator[Conversation]:
    """Apply the steps of a source lazily; conversations are unchanged if all are at the default.

    Args:
        conversations: Conversations, their tool calls not yet text.
        spec: The source.
        changed: Receives the number of turns that a step changed.

    Raises:
        DataError: A selector raises or returns a wrong index.
    """
    if not changed_settings(spec):
        yield from conversations
        return
    selector = find_selector(spec.train_on, spec.path)
    options = RowOptions(spec.rows, spec.reasoning == "mask", spec.keep_last_turns)
    for conversation in conversations:
        opening = _opening_turns(conversation)
        before = conversation.num_trained
        if spec.train_on != "all":
            conversation = select_turns(conversation, spec.train_on, selector)
            if taken := before - conversation.num_trained:
                changed[UNTRAINED] += taken
        if spec.reasoning == "drop":
            conversation = _without_reasoning(conversation, changed)
        yield replace(conversation, options=replace(options, opening_turns=opening))


def _opening_turns(conversation: Conversation) -> int:
    count = 0
    for message in conversation.messages:
        if message.trained:
            return count
        count += message.role == "assistant"
    return count


def _without_reasoning(conversation: Conversation, changed: Counter[str]) -> Conversation:
    messages: list[Message] = []
    for message in conversation.messages:
        if message.role == "assistant" and (
            message.reasoning is not None or begins_with_thought(message.content)
        ):
            content = message.content
            content = spoken(content) if begins_with_thought(content) else content
            empty = not content.strip() and not message.tool_calls
            changed[DROPPED] += 1
            trained = message.trained and not empty
            if trained < message.trained:
                changed[EMPTIED] += 1
            message = replace(message, content=content, reasoning=None, trained=trained)
        messages.append(message)
    return replace(conversation, messages=tuple(messages))
