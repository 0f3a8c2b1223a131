"""Loading a model for the command line: a folder, a hub id or an adapter's folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.quiet import silenced
from dataset_builders.errors import ConfigError, MissingExtraError, SourceNotFoundError
from dataset_builders.masks.chat_templates import load_template

if TYPE_CHECKING:
    from evaluators.base import Subject

_ADAPTER_FILE = "adapter_config.json"


def load_subject(
    model: str,
    adapter: str | None = None,
    *,
    chat_template: str | None = None,
    end_of_turn: tuple[str, ...] = (),
    device: str | None = None,
) -> Subject:
    """Load a model and its tokenizer.

    Weights are loaded in bfloat16 on a GPU and in float32 on a CPU.

    Args:
        model: Folder or hub id of a model, or the folder of an adapter, whose base is
            then taken from its config.
        adapter: Folder of an adapter to put on the model.
        chat_template: Chat template of this package to use in place of the tokenizer's.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.
        device: Such as "cuda:1"; by default the first GPU if there is one.

    Raises:
        SourceNotFoundError: A folder is missing, or the hub cannot be reached.
        MissingExtraError: torch, transformers or peft is not installed.
        ConfigError: The chat template is unknown.
    """
    torch, transformers = _libraries()
    model, adapter = _resolve(model, adapter)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(_tokenizer_place(model, adapter))
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{model}: cannot be loaded: {_first_line(error)}") from error
    if adapter is not None:
        loaded = _with_adapter(loaded, adapter)
    if chat_template is not None:
        tokenizer.chat_template = load_template(chat_template)
    from evaluators.base import Subject

    return Subject(model=loaded.to(device).eval(), tokenizer=tokenizer, end_of_turn=end_of_turn)


def served_subject(url: str, name: str | None, key_variable: str) -> Subject:
    """A model behind an OpenAI-compatible server.

    Args:
        url: Such as "http://127.0.0.1:8000/v1".
        name: The model's name there; may be left out where the server has one model only.
        key_variable: Environment variable that holds the key.

    Raises:
        ConfigError: The server has several models, and none is named.
        EndpointError: The server does not answer.
        MissingExtraError: openai is not installed.
    """
    from dataset_builders.collection.client import Endpoint
    from evaluators.base import Subject
    from evaluators.endpoint_model import EndpointModel, served_models

    endpoint = Endpoint(name or "", url, key_variable=key_variable, tries=5, patience=300.0)
    if name is None:
        found = served_models(endpoint)
        if len(found) != 1:
            raise ConfigError(f"{url}: found models {', '.join(found)}: choose with --model-name")
        endpoint = replace(endpoint, model=found[0])
    return Subject(model=None, tokenizer=None, server=EndpointModel(endpoint))


def load_tokenizer(path: str, chat_template: str | None = None) -> Any:
    """Load a tokenizer.

    Raises:
        SourceNotFoundError: There is none.
        MissingExtraError: transformers is not installed.
        ConfigError: The chat template is unknown.
    """
    _, transformers = _libraries()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(Path(path).expanduser()))
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{path}: no tokenizer: {_first_line(error)}") from error
    if chat_template is not None:
        tokenizer.chat_template = load_template(chat_template)
    return tokenizer


def _libraries() -> tuple[Any, Any]:
    try:
        with silenced():
            import torch
            import transformers

            # Loading one of these pulls in torchao, which speaks of libraries it misses.
            _ = transformers.AutoModelForCausalLM, transformers.PreTrainedModel
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name} is missing: pip install 'agenttuning-plugin[eval]'"
        ) from error
    return torch, transformers


def _resolve(model: str, adapter: str | None) -> tuple[str, str | None]:
    place = Path(model).expanduser()
    if not (place / _ADAPTER_FILE).is_file():
        if model.startswith(("~", ".", "/")) and not place.is_dir():
            raise SourceNotFoundError(f"{model}: no such folder")
        return (str(place) if place.is_dir() else model), adapter
    if adapter is not None:
        raise ConfigError(f"{model} is an adapter itself, so --adapter {adapter} cannot be added")
    base = json.loads((place / _ADAPTER_FILE).read_text("utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{place / _ADAPTER_FILE}: base_model_name_or_path: found nothing")
    return base, str(place)


def _tokenizer_place(model: str, adapter: str | None) -> str:
    # Training may have added a template or tokens; what it saved is what fits.
    if adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file():
        return adapter
    return model


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError("peft is missing: pip install 'agenttuning-plugin[trl]'") from error
    if not (Path(adapter).expanduser() / _ADAPTER_FILE).is_file():
        raise SourceNotFoundError(f"{adapter}: found no {_ADAPTER_FILE}, expected an adapter")
    place = Path(adapter).expanduser()
    rows = _embedded_tokens(place, _name_of(model.get_input_embeddings(), model))
    if rows not in (None, model.get_input_embeddings().num_embeddings):
        # Training added tokens to the base; their rows come with the adapter.
        model.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, str(place))


def _name_of(module: Any, model: Any) -> str:
    return next(str(name) for name, one in model.named_modules() if one is module)


def _embedded_tokens(adapter: Path, name: str) -> int | None:
    """Rows of the embedding that an adapter was saved with; None where it holds none."""
    from safetensors import safe_open

    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        return None
    with safe_open(str(weights), "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 (not a mapping)
            if f".{name}." not in key:
                continue
            shape = tensors.get_slice(key).get_shape()
            if key.endswith("weight"):
                return int(shape[0])
            if key.endswith("lora_embedding_A"):
                return int(shape[1])
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
