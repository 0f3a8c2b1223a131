"""Vary the format of agent conversations while they are read.

Agent-FLAN (arXiv 2403.12881) finds that agents trained on one format learn the format, and call
tools that do not exist; harness variation (arXiv 2608.15763) trains on several wordings and tool
names. What an episode does stays the same here: only how tools and instructions are called changes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from dataset_builders.conversation import Conversation
from dataset_builders.variation.protocols import (
    Protocol,
    load_protocols,
    protocol_of,
    reworded,
    with_action_names,
)
from dataset_builders.variation.settings import VarySettings
from dataset_builders.variation.tool_names import with_tool_names, with_tool_order

TOOLS, WORDING, ORDER = "vary_tools", "vary_wording", "vary_order"
"""Counters of conversations that were made with a variation."""

VARIANTS = "vary_variants"
"""Counter of varied conversations."""

UNVARIED = "vary_none"
"""Counter of variants that were not made: nothing, or nothing more, could be varied."""

_TRIES = 20
"""Draws of a variant, until it is another one than those before."""


def stream_variants(
    conversations: Iterable[Conversation], settings: VarySettings, changed: Counter[str]
) -> Iterator[Conversation]:
    """Yield each conversation with its variants, lazily.

    Variants keep `where`, so that a conversation that is held out leaves training with them all.

    Args:
        conversations: The conversations of a source.
        settings: What is varied.
        changed: Receives the counts.

    Raises:
        ConfigError: The user's protocols have another form.
        SourceNotFoundError: There is no such file of protocols.
    """
    protocols = load_protocols(settings.file)
    for ordinal, conversation in enumerate(conversations):
        if settings.original:
            yield conversation
        protocol = protocol_of(conversation, protocols)
        seen = [conversation]
        for number in range(1, settings.variants + 1):
            rng = random.Random(f"agenttuning/vary/{settings.seed}/{ordinal}/{number}")
            for _ in range(_TRIES):  # There may be few wordings, or orders of the tools.
                counts: Counter[str] = Counter()
                variant = _variant(conversation, protocol, settings, rng, counts)
                if variant not in seen:
                    break
            else:
                changed[UNVARIED] += 1
                continue
            seen.append(variant)
            changed.update(counts)
            changed[VARIANTS] += 1
            yield replace(variant, id=f"{conversation.id}-v{number}")
        if len(seen) == 1 and not settings.original:
            yield conversation  # No record is lost.


def _variant(
    conversation: Conversation,
    protocol: Protocol | None,
    settings: VarySettings,
    rng: random.Random,
    counts: Counter[str],
) -> Conversation:
    made = conversation
    if settings.wording and protocol is not None:
        made = _counted(made, reworded(made, protocol, rng), WORDING, counts)
    if settings.order and made.tools:
        made = _counted(made, with_tool_order(made, rng), ORDER, counts)
    if settings.tools and made.tools:
        made = _counted(made, with_tool_names(made, rng), TOOLS, counts)
    elif settings.tools and protocol is not None:
        made = _counted(made, with_action_names(made, protocol, rng), TOOLS, counts)
    return made


def _counted(
    before: Conversation, after: Conversation, name: str, counts: Counter[str]
) -> Conversation:
    if after != before:
        counts[name] += 1
    return after
