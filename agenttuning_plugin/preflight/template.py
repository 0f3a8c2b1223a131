"""Check that a chat template shows which text the model is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agenttuning_plugin.config.findings import Finding
from dataset_builders.conversation import Conversation
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.chat_templates import check_tokenizer
from dataset_builders.mixing.preparation import Encoding


def check_template(
    tokenizer: Any, encoding: Encoding, conversations: Sequence[Conversation]
) -> Iterator[Finding]:
    """Locate trained turns by two independent methods, and say which ended them.

    Args:
        tokenizer: The run's tokenizer, with its chat template.
        encoding: Settings of the rows.
        conversations: Some of each side.

    Raises:
        CertificationError: The two methods disagree.
        ConfigError: The tokenizer cannot be used.
    """
    name = str(getattr(tokenizer, "name_or_path", "") or "tokenizer")
    check_tokenizer(tokenizer, name)
    renderer = ChatRenderer(tokenizer, encoding.end_of_turn)
    ways: list[str] = []
    turns = 0
    for conversation in conversations:
        try:
            rendered = renderer.render(conversation, certify=True)
        except MaskError:
            continue  # counted, with its reason, where the rows are made
        ways.append(rendered.way)
        turns += len(rendered.spans)
    ends = " or ".join(map(repr, renderer.end_tokens))
    if ways:
        methods = " and ".join(sorted(set(ways)))
        found = f"{turns} turns found by {methods}, confirmed"
        detail = f"{found}; trained with their end {ends}"
        yield Finding("template", detail)
