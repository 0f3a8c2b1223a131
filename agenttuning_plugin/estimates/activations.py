"""Trace a training step and an evaluation on fake tensors: what is alive beside the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from agenttuning_plugin.estimates.fake_model import (
    add_adapters,
    build_model,
    decoder_blocks,
    fake_tensors,
)
from agenttuning_plugin.estimates.fused_kernels import fused_kernels
from agenttuning_plugin.estimates.live_memory import GRADIENTS, live_memory
from agenttuning_plugin.estimates.shape import TrainingShape

CHUNK = 256
"""Tokens whose logits are made at once with a chunked head (TRL's `chunked_nll`)."""

ROWS = 16
"""Rows of a generating batch, the evaluators' default `batch_size`."""

CACHE = "key-value cache"

PREFILL = 2048
"""Tokens that evaluators read in one forward pass (`evaluators.models.batching`)."""


@dataclass(frozen=True)
class Depths:
    """Layers to trace in place of all: the pattern of layers once, and once more.

    A layer's saved activations are the same at each repetition of the pattern, and all of them
    are alive both when the loss is computed and when the last layer's backward pass begins. So the
    peak grows by the same bytes with each repetition.
    """

    first: int
    second: int
    layers: int

    def extrapolate(self, measure: Callable[[int], dict[str, int]]) -> dict[str, int]:
        """Return figures of all layers from those of the two depths."""
        one = measure(self.first)
        if self.first == self.layers:
            return one
        two = measure(self.second)
        times = (self.layers - self.first) / (self.second - self.first)
        return {
            key: round(one.get(key, 0) + times * (two.get(key, 0) - one.get(key, 0)))
            for key in {**one, **two}
        }


def depths_of(model: Any, text: Any) -> Depths:
    """Find the shortest pattern that a model's layers repeat, after any different first ones."""
    kinds = getattr(text, "layer_types", None) or ()
    blocks = [
        (kind, tuple(tuple(each.shape) for each in block.parameters()))
        for block, kind in zip(
            decoder_blocks(model), [*kinds, *[""] * text.num_hidden_layers], strict=False
        )
    ]
    number = len(blocks)
    for end in range(1, number // 2 + 1):
        for period in range(1, end + 1):
            start = end - period
            later = range(start, number - period)
            if all(blocks[place] == blocks[place + period] for place in later):
                return Depths(end, end + period, number)
    return Depths(number, number, number)


def with_layers(model_config: Any, layers: int) -> Any:
    """Return a configuration with only the first layers."""
    config = copy.deepcopy(model_config)
    text = config.get_text_config()
    before = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == before:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return config


def trace_training(
    model_config: Any, shape: TrainingShape, *, keep_outer: bool = False, to_layers: bool = True
) -> dict[str, int]:
    """Return the bytes alive beside the weights at the peak of a forward and backward pass.

    Args:
        model_config: The model, of few layers.
        shape: The run.
        keep_outer: Whether gradients of embeddings and head are counted after they are made:
            without earlier gradients in memory, theirs stay while the layers' are made.
        to_layers: Whether to leave out what follows the layers' backward passes: the
            embedding's, whose peak does not grow with the layers.
    """
    import torch

    with _prepared(model_config, shape, training=True) as (model, vocabulary):
        blocks = {id(each) for block in decoder_blocks(model) for each in block.parameters()}
        live = live_memory([*model.parameters(), *model.buffers()], vocabulary)

        def finished(parameter: Any) -> None:
            if keep_outer and id(parameter) not in blocks:
                live.claim(parameter.grad, GRADIENTS)
            else:
                parameter.grad = None  # counted by itself

        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(finished)
        if to_layers:
            decoder_blocks(model)[0].register_forward_pre_hook(_stop_at(live), with_kwargs=True)
        ids = torch.zeros(shape.micro_batch, shape.sequence_len, dtype=torch.long)
        with live:
            inputs = {"input_ids": ids, "use_cache": False} | _mask(shape)
            _loss(model, inputs, shape).backward()
        return dict(live.peak)


def _stop_at(live: Any) -> Callable[..., None]:
    """Return a hook of the first layer that stops recording once its backward pass is done."""

    def before(module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: setattr(live, "recording", False))

    return before


def trace_scoring(model_config: Any, shape: TrainingShape) -> dict[str, int]:
    """Return the bytes alive beside the weights while evaluation scores tokens."""
    import torch

    with _prepared(model_config, shape, training=False) as (model, vocabulary):
        live = live_memory([*model.parameters(), *model.buffers()], vocabulary)
        ids = torch.zeros(1, shape.scored_tokens, dtype=torch.long)
        with live:
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            values = logits.float()
            values.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
            # What `logsumexp` does inside, unseen by a dispatch mode.
            (values - values.amax(-1, keepdim=True)).exp_().sum(-1)
        return dict(live.peak)


def trace_generation(model_config: Any, shape: TrainingShape) -> dict[str, int]:
    """Return the bytes of a generating batch's cache, and of reading a part of its prompts."""
    import torch

    with _prepared(model_config, shape, training=False) as (model, vocabulary):
        length = max(1, shape.cached_tokens // ROWS)
        live = live_memory([*model.parameters(), *model.buffers()], vocabulary)
        ids = torch.zeros(max(1, PREFILL // length), length, dtype=torch.long)
        with live:
            output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
            for tensor in _cached(output.past_key_values):
                live.claim(tensor, CACHE)
            live.peak[CACHE] = live.now[CACHE] * ROWS // len(ids)
        return dict(live.peak)


def _cached(cache: Any) -> Iterator[Any]:
    """Yield the tensors of a cache, of whatever kind its layers are."""
    import torch
    from torch.utils._pytree import tree_leaves

    for layer in getattr(cache, "layers", ()):
        yield from (each for each in tree_leaves(vars(layer)) if isinstance(each, torch.Tensor))


@contextmanager
def _prepared(
    model_config: Any, shape: TrainingShape, *, training: bool
) -> Iterator[tuple[Any, int]]:
    """Yield the model with fake tensors, as a trainer prepares it, and its vocabulary."""
    import torch

    model = build_model(model_config, shape)
    if shape.method != "full":
        model = add_adapters(model, shape)
    if training and shape.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if shape.method != "full":
            model.enable_input_require_grads()
    model.train(training)
    autocast = torch.autocast("cpu", getattr(torch, shape.autocast)) if shape.autocast else None
    with (
        fake_tensors(model),
        nullcontext() if _has_mask(shape) else _no_mask(),
        fused_kernels(model) if shape.device == "cuda" else nullcontext(),
        autocast or nullcontext(),
        nullcontext() if training else torch.no_grad(),
    ):
        yield model, model_config.get_text_config().vocab_size


@contextmanager
def _no_mask() -> Iterator[None]:
    """Let transformers leave out the causal mask, as it does where it can look at the data."""
    from transformers import masking_utils

    answers = {"is_tracing": False, "find_packed_sequence_indices": None}
    with ExitStack() as stack:
        for name, answer in answers.items():
            if hasattr(masking_utils, name):
                stack.enter_context(patch.object(masking_utils, name, return_value=answer))
        yield


def _has_mask(shape: TrainingShape) -> bool:
    """Whether attention needs a mask of T x T."""
    return shape.packed and "flash" not in shape.attention


def _mask(shape: TrainingShape) -> dict[str, Any]:
    """Return the mask that keeps packed documents apart where attention takes no boundaries."""
    import torch

    if not _has_mask(shape):
        return {}
    length = shape.sequence_len
    return {"attention_mask": torch.ones(shape.micro_batch, 1, length, length, dtype=torch.bool)}


def _loss(model: Any, inputs: dict[str, Any], shape: TrainingShape) -> Any:
    """Run the forward pass to a loss, as the trainer would."""
    import torch

    ids = inputs["input_ids"]
    if shape.head == "full":
        outputs = model(**inputs, labels=ids)
        if shape.autocast:
            # accelerate's own copy, alive until the backward pass begins
            outputs.logits = outputs.logits.float()
        return outputs.loss
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = base.get_decoder()(**inputs).last_hidden_state.flatten(0, 1)
    head = base.get_output_embeddings()
    if shape.head == "chunked":
        hidden = hidden[ids.flatten()]  # TRL sorts trained tokens to the front
    first = hidden[: CHUNK if shape.head == "chunked" else 1]
    chunk = torch.utils.checkpoint.checkpoint(
        lambda part: torch.nn.functional.cross_entropy(head(part).float(), ids[0, : len(part)]),
        first,
        use_reentrant=False,
    )
    return chunk + hidden.mean()
