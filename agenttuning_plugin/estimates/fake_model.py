"""Build a model of a configuration without memory: its tensors have shapes, but no data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agenttuning_plugin.estimates.shape import ALL_LINEAR, LINEAR_LAYERS, TrainingShape
from dataset_builders.errors import ConfigError
from dataset_builders.stdio import silenced

FLOAT32 = "float32"


@contextmanager
def fake_tensors(model: Any) -> Iterator[None]:
    """Give a model fake tensors, which code can run on; tensors made within are fake too.

    Args:
        model: On torch's `meta` device, as `build_model` returns it; changed in place.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        made: dict[int, Any] = {}  # tied weights stay one tensor
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, old in tensors.items():
                    if old is None:
                        continue
                    if id(old) not in made:
                        new = torch.empty(old.shape, dtype=old.dtype)
                        if isinstance(old, torch.nn.Parameter):
                            new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                        made[id(old)] = new
                    tensors[name] = made[id(old)]
        yield


def build_model(model_config: Any, shape: TrainingShape) -> Any:
    """Build a model as a trainer would load it, on torch's `meta` device.

    Args:
        model_config: A transformers configuration; not changed.
        shape: Its precision and attention.

    Raises:
        ConfigError: transformers has no causal language model for it, or cannot build it.
    """
    import torch

    dtype = torch_dtype(model_config, shape.dtype)
    errors = []
    for kind, attention in _builders(shape.attention):
        try:
            with silenced(), torch.device("meta"):
                model = kind.from_config(
                    type(model_config).from_dict(model_config.to_dict()),
                    dtype=dtype,
                    attn_implementation=attention,
                )
            break
        except Exception as error:  # of the architecture's own code
            errors.append(" ".join(str(error).split()))
    else:
        raise ConfigError(f"{model_config.model_type}: cannot be built to estimate: {errors[0]}")
    if shape.head_dtype:
        _cast_outside_layers(model, getattr(torch, shape.head_dtype))
    return model


def _builders(attention: str) -> Iterator[tuple[Any, str]]:
    """Yield loaders and attention to try, in order."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    # Flash attention, which may not be installed here, stores what torch's own fused one does.
    if attention != "eager":
        yield AutoModelForCausalLM, "sdpa"
        yield AutoModelForImageTextToText, "sdpa"
    yield AutoModelForCausalLM, "eager"
    yield AutoModelForImageTextToText, "eager"


def torch_dtype(model_config: Any, name: str) -> Any:
    """Return a torch type by name; `auto` is the checkpoint's, float32 if it names none."""
    import torch

    if name == "auto":
        found = getattr(model_config, "dtype", None) or getattr(
            model_config.get_text_config(), "dtype", None
        )
        name = str(found or FLOAT32).removeprefix("torch.")
    return getattr(torch, name)


def _cast_outside_layers(model: Any, dtype: Any) -> None:
    """Cast norms, embeddings and output head, as trainers do before they train."""
    for name, module in model.named_modules():
        embeds = module in (model.get_input_embeddings(), model.get_output_embeddings())
        if embeds or "norm" in name:
            module.to(dtype)


def add_adapters(model: Any, shape: TrainingShape) -> Any:
    """Return the model with the shape's adapters, its own weights frozen.

    Raises:
        ConfigError: No module has a target's name.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    targets: Any = ALL_LINEAR if shape.targets == (ALL_LINEAR,) else list(shape.targets)
    if shape.targets == (LINEAR_LAYERS,):
        targets = sorted({name.rpartition(".")[2] for name, _ in linear_weights(model)})
    config = LoraConfig(
        r=shape.rank,
        target_modules=targets,
        lora_dropout=shape.dropout,
        task_type="CAUSAL_LM",
    )
    try:
        with silenced(), torch.device("meta"):
            adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise ConfigError(f"lora targets: {' '.join(str(error).split())}") from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, shape.adapter_dtype))
    return adapted


def linear_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights that bitsandbytes quantizes: of linear layers, but for the output head."""
    import torch

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name:
            yield name, module.weight


def expert_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield weights of a mixture's experts that are stored as one tensor of three dimensions."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and "expert" in name:
            yield name, parameter


def decoder_blocks(model: Any) -> list[Any]:
    """Return the layers that sharding gathers one by one and checkpointing recomputes."""
    names = {str(name) for name in getattr(model, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names]
