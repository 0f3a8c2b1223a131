"""Detect what a model's key-value cache supports, before generation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from evaluators.models.compiled import original

CacheKind = Literal["shared", "own", "none"]

_CACHE_NAMES = ("cache", "past_key_values")
"""Names of the cache in a forward's arguments and outputs: from transformers 5.24 on, and
before. A call with the old name warns on the new versions, and fails from 5.40 on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheSupport:
    """How text can be generated with a model.

    Attributes:
        kind: "shared": keys and values of a token depend on nothing but the tokens before
            it, so they can be kept, moved between batches and used again. "own": the
            model has a special cache (a sliding window, a state), which serves
            one batch from its beginning to its end. "none": no cache that is known; every
            token is computed from the whole row.
        positions: Whether it accepts position ids.
        last_only: Whether it can return only the last logits.
        turn: Longest row whose angles are the short ones, under LongRoPE: a longer one has
            others at all of its places, and so has what shares a batch with it.
        name: Name of the cache in the model's arguments and outputs.
    """

    kind: CacheKind
    positions: bool
    last_only: bool
    turn: int | None = None
    name: str = _CACHE_NAMES[0]

    def apart(self, lengths: Sequence[int], room: int) -> list[list[int]]:
        """Return groups of rows that may share a batch.

        Args:
            lengths: Tokens of each prompt.
            room: Maximum tokens of an answer.
        """
        numbers = range(len(lengths))
        if self.turn is None:
            return [list(numbers)]
        short = [n for n in numbers if lengths[n] + room <= self.turn]
        long = [n for n in numbers if lengths[n] > self.turn]
        turning = [[n] for n in numbers if lengths[n] <= self.turn < lengths[n] + room]
        return [short, long, *turning]


def cache_support(model: Any) -> CacheSupport:
    """Inspect a model's signature, configuration and layers.

    For a model that must generate without a cache, one warning gives the reason:
    each of its tokens costs a pass over the whole row.

    Args:
        model: A `PreTrainedModel`, or a `PeftModel` around one, compiled or not.
    """
    model = original(model)
    base = original(model.get_base_model() if hasattr(model, "get_base_model") else model)
    names = set(inspect.signature(base.forward).parameters)
    positions, last_only = "position_ids" in names, "logits_to_keep" in names
    if _has_virtual_tokens(model):  # They lie in front of the row, or in the cache.
        warn_no_cache(base, "its adapter puts virtual tokens in front of the row")
        return CacheSupport("none", False, False)
    name = next((name for name in _CACHE_NAMES if name in names), None)
    kind: CacheKind = "shared" if positions and _is_plain(base.config) else "own"
    if reason := _why_none(base, name, stateful=kind == "own" and not positions):
        kind = "none"
        warn_no_cache(base, reason)
    return CacheSupport(kind, positions, last_only, _turn(base.config), name or _CACHE_NAMES[0])


def _why_none(base: Any, name: str | None, *, stateful: bool) -> str | None:
    """Return why a model cannot generate with a cache; None if it can."""
    if name is None:
        return f"its forward takes none of the arguments {', '.join(_CACHE_NAMES)}"
    if base.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    if not getattr(base, "_supports_default_dynamic_cache", lambda: True)():
        return "it refuses transformers' DynamicCache"
    if stateful and getattr(base, "_is_stateful", False):
        return "its states do not support left padding"
    return None


def warn_no_cache(model: Any, reason: str) -> None:
    """Warn once that a type of model generates without a cache."""
    _warn_once(type(original(model)).__name__, reason)


@cache
def _warn_once(kind: str, reason: str) -> None:
    _log.warning(
        "%s is evaluated without a key-value cache: %s. Each new token is computed from the "
        "whole row, one row at a time; expect generation to be many times slower",
        kind,
        reason,
    )


def new_cache(config: Any) -> Any:
    """Create the library's own cache for a model."""
    from transformers import DynamicCache

    return DynamicCache(config=config)


def _is_plain(config: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    text = config.get_text_config(decoder=True)
    # Angles that depend on the longest row would make keys depend on their batch.
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if "dynamic" in str(scaling) or "longrope" in str(scaling):
        return False
    # GPT-Neo's windows count columns, and a row that is continued has foreign ones in it.
    if "local" in (getattr(text, "attention_layers", None) or ()):
        return False
    layers = new_cache(config).layers
    number = getattr(text, "num_hidden_layers", None)
    return len(layers) == number and all(type(layer) is DynamicLayer for layer in layers)


def _turn(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)
    scaling = getattr(text, "rope_parameters", None) or {}
    # One for all layers, or one for each type of layer.
    several = [scaling, *(value for value in scaling.values() if isinstance(value, dict))]
    turns = [
        int(one["original_max_position_embeddings"])
        for one in several
        if one.get("rope_type") == "longrope"
    ]
    return min(turns, default=None)


def _has_virtual_tokens(model: Any) -> bool:
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict):
        return False
    return any(getattr(config, "is_prompt_learning", False) for config in configs.values())


def room_for_prefixes(model: Any) -> int:
    """Return the tokens whose keys and values take a quarter of the free memory, at most 4 GiB."""
    import psutil
    import torch

    config = model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    held = getattr(config, "num_key_value_heads", None) or heads
    width = torch.finfo(model.dtype).bits // 8
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = psutil.virtual_memory().available  # The page cache counts as free.
    return int(min(free // 4, 4 * 2**30) // (2 * config.num_hidden_layers * held * size * width))
