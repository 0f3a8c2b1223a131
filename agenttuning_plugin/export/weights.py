"""Load a model as it was trained, and merge its adapter into the weights that training used."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from agenttuning_plugin.evaluation.model_loading import with_adapter
from agenttuning_plugin.export.trained import TrainedModel
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.extras import needs_extra
from dataset_builders.stdio import silenced


def load_config(base: str, revision: str | None) -> Any:
    """Load a model's config.

    Raises:
        SourceNotFoundError: There is none, or the hub cannot be reached.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{base}: no model config: {_line(error)}") from error


def empty_model(config: Any) -> Any:
    """Return a model of a config without memory for its weights, for names and shapes."""
    import torch
    from transformers import AutoModelForCausalLM

    factory: Any = AutoModelForCausalLM
    with silenced(), torch.device("meta"):
        return factory.from_config(config)


def load_base(trained: TrainedModel, device: str, dtype: str | None) -> Any:
    """Load the base model as in training: its type of weights, quantised if it was.

    On a CPU it computes in float32; the weights have the values of training.

    Args:
        trained: The trained model.
        device: Such as "cuda".
        dtype: Type of the base's own weights, if the run's is unknown.

    Raises:
        SourceNotFoundError: It cannot be loaded.
        MissingExtraError: bitsandbytes is needed and not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kind = trained.dtype or dtype or "float32"
    options: dict[str, Any] = {"dtype": getattr(torch, kind), "revision": trained.revision}
    if trained.quantization:
        with needs_extra("axolotl"), silenced():
            import bitsandbytes as _  # noqa: F401  # transformers raises errors of many kinds
        kind_of_settings: Any = BitsAndBytesConfig
        settings = kind_of_settings.from_dict(dict(trained.quantization))
        if device == "cpu":
            settings.bnb_4bit_compute_dtype = torch.float32
        options |= {"quantization_config": settings, "device_map": {"": device}}
    try:
        with silenced():
            model: Any = AutoModelForCausalLM.from_pretrained(trained.base, **options)
    except (OSError, ValueError, ImportError) as error:
        raise SourceNotFoundError(f"{trained.base}: cannot be loaded: {_line(error)}") from error
    if not trained.quantization:
        model = model.to(device)
    if device == "cpu":
        _compute_in_float32(model)
    return model.eval()


def attach_adapter(model: Any, trained: TrainedModel) -> Any:
    """Apply the adapter; see `with_adapter` for errors."""
    return with_adapter(model, str(trained.folder)).eval()


def keep_quantized_layout(model: Any) -> None:
    """Stop bitsandbytes from storing 4-bit weights in a lossy layout when a CPU evaluates them.

    On CPUs with AVX512-BF16 an evaluation rounds the scales of the weights to bfloat16 in place.
    The layers have no dropout, so that their training mode computes the same.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.training = True


def dequantized(model: Any) -> Any:
    """Return the base with the values that its quantised layers compute with; others untouched.

    On a CPU in float32: there the layers compute with values that were never rounded to 16 bits.
    """
    import torch

    if not getattr(model, "is_quantized", False):
        return model
    kind = None
    if model.device.type == "cpu":
        kind = torch.float32
        for weight in model.parameters():
            if (state := getattr(weight, "quant_state", None)) is not None:
                state.dtype = kind
    with silenced():
        return model.dequantize(dtype=kind)


def merge_adapter(model: Any, dtype: str) -> Any:
    """Add the adapter to its layers, each in float32 and then rounded; return the plain model.

    Args:
        model: A `peft` model on a base that is not quantised.
        dtype: Type of the weights of its layers afterwards.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    _untie(model)
    with silenced(), torch.no_grad():
        for module in model.modules():
            layer = getattr(module, "base_layer", None)
            weight = getattr(layer, "weight", None)
            if not isinstance(module, BaseTunerLayer) or weight is None:
                continue
            weight.data = weight.data.float()
            module.merge(safe_merge=True)
            weight = getattr(layer, "weight")  # noqa: B009  # may be another one now
            weight.data = weight.data.to(getattr(torch, dtype))
        with catch_warnings():
            simplefilter("ignore")  # on merged layers, and on embeddings that are no longer tied
            # What is left: whole trained modules, and the wrappers themselves.
            return model.merge_and_unload(safe_merge=True)


def _untie(model: Any) -> None:
    """Separate tied embeddings of which the adapter changes only one."""
    import torch

    plain = model.get_base_model()
    ends = [plain.get_input_embeddings(), plain.get_output_embeddings()]
    layers = [getattr(each, "base_layer", each) for each in ends]
    wrapped = any(layer is not end for layer, end in zip(layers, ends, strict=True))
    weights = [getattr(layer, "weight", None) for layer in layers]
    if wrapped and weights[0] is not None and weights[0] is weights[1]:
        layers[1].weight = torch.nn.Parameter(weights[1].detach().clone())
        plain.config.tie_word_embeddings = False


def convert(model: Any, dtype: str) -> Any:
    """Convert the weights to a type, but for those that the architecture keeps in float32."""
    import torch

    names = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    kept = {part for name in names for part in getattr(model, name, None) or ()}
    for name, weight in model.named_parameters():
        if weight.is_floating_point():
            whole = any(part in name.split(".") for part in kept)
            weight.data = weight.data.to(torch.float32 if whole else getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    return model


def _compute_in_float32(model: Any) -> None:
    for weight in [*model.parameters(), *model.buffers()]:
        if weight.is_floating_point() and not hasattr(weight, "quant_state"):
            weight.data = weight.data.float()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def check_shapes(trained: TrainedModel, empty: Any) -> None:
    """Compare the shapes of a LoRA with those of the base's layers.

    Raises:
        ConfigError: A layer is missing, or has another shape.
    """
    modules = dict(empty.named_modules())
    for name, shape in _adapter_shapes(trained.folder).items():
        layer, _, factor = name.partition(".lora_")
        # Several parameters of a module, such as a mixture's experts, are wrapped one in another.
        place = layer.removeprefix("base_model.model.").replace(".base_layer", "")
        if not factor.startswith(("A", "B")):
            continue
        weight = getattr(modules.get(place), "weight", None)
        side = int(factor.startswith("A"))
        found = None if weight is None else weight.shape[side]
        expected = shape[side]
        if found != expected and type(modules.get(place)).__name__ in ("Linear", "NoneType"):
            what = "no such layer" if found is None else f"size {found}"
            raise ConfigError(
                f"{trained.base}: {place}: found {what}, but the adapter in {trained.folder} was "
                f"trained on one of size {expected}: it belongs to another model"
            )


def _adapter_shapes(folder: Path) -> dict[str, list[int]]:
    from agenttuning_plugin.reports.model_record import tensor_headers

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return {}  # an old .bin; peft checks it when it is loaded
    return {name: tensor["shape"] for name, tensor in tensor_headers(file).items()}
