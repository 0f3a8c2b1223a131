"""`train_on`: choose which of a conversation's trained turns the loss covers.

A selector is a function from a conversation to indices of its messages. It can only take turns
out: a turn that the source marks as not trained stays so.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from dataset_builders.conversation import Conversation
from dataset_builders.errors import AgentTuningError, ConfigError, DataError
from dataset_builders.sources import turn_file
from dataset_builders.user_code import is_reference, load_function, one_line, source_digest

Selector = Callable[[Conversation], Iterable[int]]
"""Returns indices of assistant turns in `Conversation.messages`."""


def _trained(conversation: Conversation) -> list[int]:
    return [index for index, message in enumerate(conversation.messages) if message.trained]


def _last(conversation: Conversation) -> list[int]:
    return _trained(conversation)[-1:]


def _calls(conversation: Conversation) -> list[int]:
    messages = conversation.messages
    return [index for index in _trained(conversation) if messages[index].tool_calls]


def _final(conversation: Conversation) -> list[int]:
    messages = conversation.messages
    return [index for index in _trained(conversation) if not messages[index].tool_calls]


SELECTORS: dict[str, Selector] = {
    "all": _trained,
    "last": _last,
    "calls": _calls,
    "final": _final,
}
"""Selectors by name: every trained turn, the last one, those with and those without tool calls."""


STATE_CHANGING = "state_changing"
JUDGE = "judge"
BEFOREHAND = (STATE_CHANGING, JUDGE)
"""Selectors that need more than the conversation: their choice is made once, before the data are
read, and lies in the folder of the prepared source (`turn_file`)."""


def find_selector(name: str, path: str = "") -> Selector:
    """Return a selector by its name or by a reference to a function.

    Args:
        name: The name or reference.
        path: Path of the source.

    Raises:
        ConfigError: There is no such selector, or it has not been prepared.
    """
    if name in SELECTORS:
        return SELECTORS[name]
    if name in BEFOREHAND:
        if turn_file.has_turn_file(path):
            return turn_file.TurnFile(Path(path).expanduser() / turn_file.PLACE)
        raise ConfigError(
            f"{path}: train_on: {name}: found data that are read without being prepared, expected "
            "a recipe, `agenttuning build` or a TrainingRun, which do that first"
        )
    if not is_reference(name):
        raise ConfigError(
            f"train_on: found {name!r}, expected {', '.join(SELECTORS)}, module:function, "
            f"./file.py:function, {' or '.join(BEFOREHAND)}"
        )
    return load_function(name, "train_on")


def selector_digest(name: str) -> str:
    """Return what a selector's choice depends on: its name, or the content of its file.

    Raises:
        ConfigError: There is no such selector.
    """
    if name in SELECTORS or name in BEFOREHAND:  # What was prepared has a fingerprint of its own.
        return name
    return f"{name.rpartition(':')[2]}:{source_digest(find_selector(name))}"


def select_turns(conversation: Conversation, name: str, selector: Selector) -> Conversation:
    """Train only on the turns that a selector returns.

    Args:
        conversation: The conversation.
        name: Name of the selector, for errors.
        selector: The selector.

    Raises:
        DataError: The selector raises, or returns something else than indices of assistant turns.
    """
    chosen = _chosen(conversation, name, selector)
    messages = tuple(
        replace(message, trained=False) if message.trained and index not in chosen else message
        for index, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=messages)


def _chosen(conversation: Conversation, name: str, selector: Selector) -> set[int]:
    where = conversation.where or conversation.id or "conversation"
    turns = [n for n, message in enumerate(conversation.messages) if message.role == "assistant"]
    try:
        found = list(selector(conversation))
    except AgentTuningError:
        raise
    except Exception as error:
        raise DataError(f"{where}: train_on {name} raised {one_line(error)}") from error
    chosen: set[int] = set()
    for value in found:
        try:
            index = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            index = None
        if index not in turns:
            expected = ", ".join(map(str, turns)) or "none"
            raise DataError(
                f"{where}: train_on {name}: found {value!r:.40}, expected indices of assistant "
                f"turns ({expected})"
            )
        chosen.add(index)
    return chosen
