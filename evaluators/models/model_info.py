"""What a model's own configuration says, and what holds where it says nothing."""

from __future__ import annotations

from typing import Any

UNSAID_CONTEXT = 4096
"""Tokens of context where a model's config names none, as for a recurrent one."""


def num_positions(model: Any) -> int | None:
    """Tokens that a model has positions for; None where its config names no limit."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def end_ids(model: Any) -> tuple[int, ...]:
    """Tokens that its generation config ends an answer with."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(map(int, ids))


def vocabulary_size(model: Any) -> int:
    """Tokens that it has vectors for."""
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    # An adapter around them does not tell.
    return int(size or model.config.get_text_config().vocab_size)
