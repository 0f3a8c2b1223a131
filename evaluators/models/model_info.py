"""Facts from a model's configuration, with defaults."""

from __future__ import annotations

from typing import Any

UNSAID_CONTEXT = 4096
"""Default context length if a model's config has none, as for a recurrent one."""


def num_positions(model: Any) -> int | None:
    """Return the maximum number of positions; None if the config has no limit."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def end_ids(model: Any) -> tuple[int, ...]:
    """Return the end tokens of its generation config."""
    return stated_end_ids(getattr(model, "generation_config", None))


def stated_end_ids(generation: Any) -> tuple[int, ...]:
    """Return the end tokens of a generation config; empty for None."""
    ids = getattr(generation, "eos_token_id", None)
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(map(int, ids))


def vocabulary_size(model: Any) -> int:
    """Return the number of rows of its embedding."""
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    # An adapter's wrapper has no such attribute.
    return int(size or model.config.get_text_config().vocab_size)
