"""Conversations in which tools are offered and none is needed.

Agent-FLAN (arXiv 2403.12881, section 3.3) adds such negatives, so that a model that is shown tools
still answers a plain question in text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError
from dataset_builders.variation.settings import VarySettings

TASK = "no_tool"
"""Task of these conversations."""

MADE = "no_tool"
"""Counter of them."""

SKIPPED = "no_tool_skipped"
"""Counter of chats that could not be used: they do not begin with a question and a text answer."""

_MAX_LISTS = 1000  # different lists of tools that are remembered


def with_no_tool_chats(
    conversations: Iterable[Conversation],
    chats: Callable[[int], Iterable[Conversation]],
    settings: VarySettings,
    changed: Counter[str],
    label: str,
) -> Iterator[Conversation]:
    """Yield the conversations and, after them, chats that are shown with their tools.

    Args:
        conversations: Agent conversations, varied already.
        chats: Returns general conversations, at most as many as asked for.
        settings: `no_tool_share` and `seed`.
        changed: Receives the counts.
        label: Name of the source, for errors.

    Raises:
        ConfigError: No conversation has tools, or there are too few chats for the share.
    """
    offered: dict[str, None] = {}
    total = 0
    for conversation in conversations:
        total += 1
        if conversation.tools and len(offered) < _MAX_LISTS:
            offered[conversation.tools] = None
        yield conversation
    if not total:
        return
    if not offered:
        raise ConfigError(
            f"{label}: vary.no_tool_share: found no conversation with tools, expected native tool "
            "calls: the actions of a text protocol are asked for in every turn"
        )
    share = settings.no_tool_share
    wanted = max(1, round(total * share / (1 - share)))
    rng, lists = random.Random(f"agenttuning/no_tool/{settings.seed}"), list(offered)
    made = 0
    for chat in chats(4 * wanted):
        if (negative := _with_tools(chat, rng.choice(lists))) is None:
            changed[SKIPPED] += 1
            continue
        made += 1
        changed[MADE] += 1
        yield negative
        if made == wanted:
            return
    raise ConfigError(
        f"{label}: vary.no_tool_share: found {made} chats that begin with a question and a text "
        f"answer, expected {wanted} for a share of {share:g}"
    )


def _with_tools(chat: Conversation, tools: str) -> Conversation | None:
    """Return the chat's first question and answer with tools; None if it has no such beginning."""
    start = int(chat.messages[0].role == "system")
    messages = chat.messages[: start + 2]
    if [message.role for message in messages[start:]] != ["user", "assistant"]:
        return None
    answer = messages[-1]
    if answer.tool_calls or not answer.trained or not answer.content.strip():
        return None
    kept: tuple[Message, ...] = (*messages[:-1], replace(answer, trained=True))
    return replace(chat, id=f"no-tool-{chat.id}", task=TASK, messages=kept, tools=tools)
