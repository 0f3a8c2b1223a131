"""Tool calls of a local model: how tools are shown to it, and how its calls are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from dataset_builders.conversation import Conversation, Message
from dataset_builders.endpoints.answer import Answer, read_answer
from dataset_builders.formats.calls_as_text import calls_as_text
from dataset_builders.formats.spelled_calls import hermes_spelling
from dataset_builders.masks.call_spelling import find_call_spelling
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.reasoning import mark_tokens, with_opening

_log = logging.getLogger(__name__)


class LocalCalls:
    """Shows tools in a prompt and reads the calls of the answer, as the chat template writes them.

    If the template cannot render calls, or what it renders cannot be read back exactly, tools,
    calls and results are text (`formats.calls_as_text`), as in training rows with the setting of
    the same name.

    Attributes:
        as_text: Whether they are text.
        spelling: How calls are written.

    Args:
        tokenizer: The tokenizer.
        end_tokens: Tokens at which generation stops; some end only a turn with a call.

    Raises:
        ConfigError: The installed transformers has no response parser.
    """

    def __init__(self, tokenizer: Any, end_tokens: Sequence[str]) -> None:
        found = find_call_spelling(tokenizer, ChatRenderer(tokenizer, end_tokens))
        self.as_text = found is None
        self.spelling = hermes_spelling() if found is None else found
        special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        self._dropped = sorted(special - mark_tokens(special), key=len, reverse=True)
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        _log_spelling(name, "" if self.as_text else self.spelling.name)

    def row(self, conversation: Conversation) -> Conversation:
        """Return a conversation as it is rendered for training or scoring."""
        return calls_as_text(conversation) if self.as_text else conversation

    def prompt(self, messages: Sequence[Message], tools: str) -> tuple[list[Message], str]:
        """Return the messages and tools to render in a prompt."""
        if self.as_text:
            return list(self.row(Conversation.create(messages, tools=tools)).messages), ""
        if self.spelling.several:
            return list(messages), tools
        return _one_call_a_turn(messages), tools

    def read(self, text: str, tools: str, *, opened: bool, cut: bool) -> Answer:
        """Read a turn.

        Args:
            text: The turn with its special tokens, without the end token.
            tools: JSON text of the tools that were offered.
            opened: Whether the prompt ended within a thought.
            cut: Whether the turn was truncated at the token limit.
        """
        turn = self.spelling.read(with_opening(text, opened), tools)
        said = turn.text
        for token in self._dropped:
            said = said.replace(token, "")
        return read_answer(
            Answer(said.strip(), cut=cut, tool_calls=turn.calls, malformed=turn.malformed)
        )


@cache
def _log_spelling(tokenizer: str, spelling: str) -> None:
    """Log once how a tokenizer's calls are written."""
    if spelling:
        _log.info("%s: tool calls are read as %s", tokenizer, spelling)
        return
    _log.warning(
        "%s: tools are shown as text, since the chat template writes no calls that can be read "
        "back; for training rows of the same form set calls_as_text: true",
        tokenizer,
    )


def _one_call_a_turn(messages: Sequence[Message]) -> list[Message]:
    """Split turns with several calls, each call followed by its result.

    For templates that render one call a turn; a model may write several nevertheless.
    """
    split: list[Message] = []
    waiting: list[Message] = []  # Turns with the later calls of the last turn.
    for message in messages:
        if message.role == "tool":
            # The results stand in the order of the calls.
            later = next((t for t in waiting if t.tool_calls[0].id == message.tool_call_id), None)
            if later is not None:
                split.append(later)
                waiting.remove(later)
            split.append(message)
            continue
        split += waiting
        first, rest = message.tool_calls[:1], message.tool_calls[1:]
        waiting = [replace(message, content="", reasoning=None, tool_calls=(c,)) for c in rest]
        split.append(replace(message, tool_calls=first))
    return split + waiting
