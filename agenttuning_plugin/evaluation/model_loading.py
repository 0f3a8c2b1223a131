"""Load a model for the command line: a folder, a hub id or an adapter's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.evaluation_run import is_url
from agenttuning_plugin.evaluation.devices import usable_device
from agenttuning_plugin.reports.model_record import tensor_headers
from dataset_builders.endpoints.address import lacks_scheme
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.extras import needs_extra
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.stdio import silenced, without_bars

if TYPE_CHECKING:
    from evaluators.evaluator import EvalTarget

_ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_LORA = ".lora_"


def load_subject(
    model: str,
    adapter: str | None = None,
    *,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    end_of_turn: tuple[str, ...] = (),
    device: str | None = None,
) -> EvalTarget:
    """Load a model and its tokenizer.

    Weights are loaded in bfloat16 on a GPU and in float32 on a CPU.

    Args:
        model: Folder or hub id of a model, or the folder of an adapter, whose base is
            then taken from its config.
        adapter: Folder of an adapter to apply to the model.
        chat_template: Chat template of this package to use instead of the tokenizer's.
        chat_template_kwargs: Variables of the chat template, see `set_template_variables`.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.
        device: Such as "cuda:1"; by default the first GPU if there is one.

    Raises:
        SourceNotFoundError: A folder is missing, or the hub cannot be reached.
        MissingExtraError: torch, transformers or peft is not installed.
        ConfigError: The device or chat template is unknown, or the adapter is of another model.
        DataError: The adapter's weights are damaged.
    """
    torch, transformers = _libraries()
    model, adapter = _resolve(model, adapter)
    device = usable_device(device)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(_tokenizer_place(model, adapter))
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{model}: cannot be loaded: {_first_line(error)}") from error
    if adapter is not None:
        loaded = with_adapter(loaded, adapter)
    if chat_template is not None:
        tokenizer.chat_template = load_template(chat_template)
    set_template_variables(tokenizer, chat_template_kwargs or {})
    from evaluators.evaluator import EvalTarget

    return EvalTarget(model=loaded.to(device).eval(), tokenizer=tokenizer, end_of_turn=end_of_turn)


def open_subject(
    place: str,
    adapter: str | None = None,
    *,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    end_of_turn: tuple[str, ...] = (),
    model_name: str | None = None,
    api_key_env: str = "OPENAI_API_KEY",
    max_concurrency: int = 64,
) -> EvalTarget:
    """Open a model from a folder, the hub or a server.

    Args:
        place: Folder, hub id or URL.
        adapter: See `load_subject`; a server must load its own.
        chat_template: See `load_subject`; a server has its own.
        chat_template_kwargs: See `load_subject`; a server is sent them with every request.
        end_of_turn: See `load_subject`; a server has its own.
        model_name: See `served_subject`.
        api_key_env: See `served_subject`.
        max_concurrency: Of a server: most requests in flight.

    Raises:
        ConfigError: An option is given with an address that only the server can apply; or see
            `load_subject` and `served_subject`, as for other errors.
    """
    if lacks_scheme(place) and not Path(place).exists():
        raise ConfigError(f"`model`: found {place!r}, expected a scheme: http://{place}")
    if not is_url(place):
        with without_bars() if Path(place).expanduser().is_dir() else nullcontext():
            return load_subject(
                place,
                adapter,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
                end_of_turn=end_of_turn,
            )
    for setting, value, remedy in (
        ("adapter", adapter, "load it on the server instead"),
        ("chat_template", chat_template, "the server has its own (vLLM: --chat-template FILE)"),
        (
            "end_of_turn",
            end_of_turn,
            "the server has its own (vLLM: --generation-config FOLDER)",
        ),
    ):
        if value:
            raise ConfigError(f"`{setting}`: found one with a URL: {remedy}")
    return served_subject(place, model_name, api_key_env, max_concurrency)


def close_subject(subject: EvalTarget) -> None:
    """Close the connections to a server; no effect on other models."""
    from evaluators.models.endpoint import EndpointModel

    if isinstance(subject.server, EndpointModel):
        subject.server.close()


def served_subject(
    url: str, name: str | None, key_variable: str, max_concurrency: int = 64
) -> EvalTarget:
    """Open a model behind an OpenAI-compatible server.

    Args:
        url: Such as "http://127.0.0.1:8000/v1".
        name: The model's name there; optional if the server has only one model.
        key_variable: Environment variable with the API key.
        max_concurrency: Maximum concurrent requests.

    Raises:
        ConfigError: The server has several models, and none is selected.
        EndpointError: The server does not answer.
        MissingExtraError: openai is not installed.
    """
    from dataset_builders.endpoints.endpoint import Endpoint
    from evaluators.evaluator import EvalTarget
    from evaluators.models.endpoint import EndpointModel, served_models

    endpoint = Endpoint(name or "", url, key_variable=key_variable, tries=5, patience=300.0)
    if name is None:
        found = served_models(endpoint)
        if len(found) != 1:
            names = ", ".join(found) or "none"
            raise ConfigError(f"{url}: found models {names}: choose one with `model_name`")
        endpoint = replace(endpoint, model=found[0])
    server = EndpointModel(endpoint, max_concurrency)
    return EvalTarget(model=None, tokenizer=None, server=server)


def load_tokenizer(path: str, chat_template: str | None = None) -> Any:
    """Load a tokenizer.

    Raises:
        SourceNotFoundError: There is none.
        MissingExtraError: transformers is not installed.
        ConfigError: The chat template is unknown.
    """
    with needs_extra("tokenizer"), silenced():
        import transformers

        # Loaded on first use; without torch, which tokenizing does not need.
        _ = transformers.AutoTokenizer
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(Path(path).expanduser()))
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{path}: no tokenizer: {_first_line(error)}") from error
    if chat_template is not None:
        tokenizer.chat_template = load_template(chat_template)
    return tokenizer


def _libraries() -> tuple[Any, Any]:
    with needs_extra("eval"), silenced():
        import torch
        import transformers

        # Loading one of these imports torchao, which reports missing libraries.
        _ = transformers.AutoModelForCausalLM, transformers.PreTrainedModel
    return torch, transformers


def _resolve(model: str, adapter: str | None) -> tuple[str, str | None]:
    place = Path(model).expanduser()
    if not (place / _ADAPTER_FILE).is_file():
        if model.startswith(("~", ".", "/")) and not place.is_dir():
            raise SourceNotFoundError(f"{model}: no such folder")
        return (str(place) if place.is_dir() else model), adapter
    if adapter is not None:
        raise ConfigError(f"{model} is already an adapter, so `adapter` {adapter} cannot be added")
    try:
        config = json.loads((place / _ADAPTER_FILE).read_text("utf-8"))
        base = config.get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{place / _ADAPTER_FILE}: found no JSON object: {error}") from error
    if not base:
        raise ConfigError(f"{place / _ADAPTER_FILE}: base_model_name_or_path: found nothing")
    return base, str(place)


def _tokenizer_place(model: str, adapter: str | None) -> str:
    # Training may have added a template or tokens, so the saved tokenizer is the right one.
    if adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file():
        return adapter
    return model


def with_adapter(model: Any, adapter: str) -> Any:
    """Apply an adapter to its base model, whose embeddings are resized to the adapter's tokens.

    Raises:
        SourceNotFoundError: There is no adapter in the folder.
        ConfigError: The adapter is of another model.
        DataError: Its weights are damaged.
        MissingExtraError: peft is not installed.
    """
    with needs_extra("eval"), silenced():
        from peft import PeftModel, get_peft_model_state_dict
        from peft.utils.save_and_load import load_peft_weights
    place = Path(adapter).expanduser()
    if not (place / _ADAPTER_FILE).is_file():
        raise SourceNotFoundError(f"{adapter}: found no {_ADAPTER_FILE}, expected an adapter")
    if not any((place / name).is_file() for name in _ADAPTER_WEIGHTS):
        raise SourceNotFoundError(
            f"{adapter}: found no {' or '.join(_ADAPTER_WEIGHTS)}, expected the adapter's weights"
        )
    if (place / _ADAPTER_WEIGHTS[0]).is_file():
        tensor_headers(place / _ADAPTER_WEIGHTS[0])
    saved = load_peft_weights(str(place), device="cpu")
    _make_room(model, saved)
    try:
        with silenced():  # Warnings about missing kernels; mismatches are checked below.
            loaded = PeftModel.from_pretrained(model, str(place))
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{adapter}: the adapter does not fit {model.name_or_path}: {line}"
        ) from error
    # For another base model peft loads what it can, with little or no warning.
    own = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    found, expected = (sum(_LORA in name for name in names) for names in (saved, own))
    if found != expected:
        raise ConfigError(
            f"{adapter}: found {found} LoRA weights, expected {expected}: it belongs to another "
            "model"
        )
    return loaded


def _make_room(model: Any, saved: Mapping[str, Any]) -> None:
    """Resize a model's embeddings to an adapter that was trained with added tokens."""
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        names = [name for name, module in model.named_modules() if module is layer]
        whole = tuple(f"{name}.weight" for name in names)
        low_rank = tuple(f"{name}.lora_embedding_A" for name in names)
        for name, weight in saved.items():
            # A LoRA on the embedding has a column for each token.
            if name.endswith(whole) or name.endswith(low_rank):
                rows = weight.shape[1 if name.endswith(low_rank) else 0]
                if rows != len(layer.weight):
                    model.resize_token_embeddings(rows, mean_resizing=False)
                    return


def _first_line(error: Exception) -> str:
    first, _, rest = str(error).strip().partition("\n")
    # Such as "... from one of:", which is useless without the next line.
    return " ".join(f"{first} {rest}".split())[:300] if first.rstrip().endswith(":") else first
