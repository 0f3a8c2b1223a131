"""The model before training, as a second forward pass beside the model in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dataset_builders.errors import ConfigError

Forward = Callable[..., Any]
"""Called with the keyword arguments of a model's forward pass; returns its output."""


@contextmanager
def reference_forward(model: Any, path: str | None = None) -> Iterator[Forward]:
    """Provide the forward pass of the reference model.

    Args:
        model: The model under evaluation, in evaluation mode.
        path: Folder or hub id of the reference; default: a PEFT model's base, by switching its
            adapters off, which needs no memory.

    Raises:
        ConfigError: Without a path, the model has no adapter, or the reference cannot be loaded.
    """
    if path is None:
        if not hasattr(model, "disable_adapter"):
            raise ConfigError(
                "reference: found none, expected the base model's folder or hub id: the weights "
                "of a fully fine-tuned model's base are not in memory"
            )
        yield _without_adapter(model)
        return
    yield _load(path, model)


def _without_adapter(model: Any) -> Forward:
    def forward(**arguments: Any) -> Any:
        # Switching adapters off and on sets requires_grad anew; training must find its own.
        trainable = [(each, each.requires_grad) for each in model.parameters()]
        try:
            with model.disable_adapter():
                return model(**arguments)
        finally:
            for parameter, flag in trainable:
                parameter.requires_grad_(flag)

    return forward


def _load(path: str, model: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        reference = AutoModelForCausalLM.from_pretrained(path, dtype=model.dtype)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"reference: {path} cannot be loaded as a model: {line}") from error
    if reference.config.vocab_size != model.config.vocab_size:
        raise ConfigError(
            f"reference: {path} has {reference.config.vocab_size} tokens in its vocabulary, "
            f"expected the model's {model.config.vocab_size}"
        )
    return reference.to(model.device).eval()
