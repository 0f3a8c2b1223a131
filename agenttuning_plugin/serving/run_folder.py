"""Read from a run's folder how its model was trained: dtype, template, end tokens, tool calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agenttuning_plugin.evaluation.model_loading import load_tokenizer
from agenttuning_plugin.serving.adapter import ADAPTER_CONFIG, Adapter, read_adapter
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.extras import needs_extra
from dataset_builders.manifest.store import MANIFEST_FILE

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"

_CONTEXT = 16384
"""Default limit of tokens per request, where the model has more: the cache of one request at a
context of 131,072 would not fit many GPUs."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model to serve, as it was trained.

    Attributes:
        folder: Folder of the adapter, or of the whole model.
        base: Folder or hub id of the weights to load: the adapter's base, or `folder`.
        adapter: The adapter; None for a whole model.
        tokenizer: Loaded from `folder`, or from `base` if it has none.
        tokenizer_folder: Folder or hub id that it was loaded from.
        end_of_turn: Tokens besides eos that end a turn.
        saved_ends: Ids of end tokens in the model's own generation config; empty if the run's
            manifest states them.
        dtype: Such as "float32"; None if no config states it.
        context: Tokens of prompt and answer together that the server has to accept; None if the
            config does not state the model's maximum.
        quantized: Whether the base was quantized in training.
    """

    folder: Path
    base: str
    adapter: Adapter | None
    tokenizer: Any = field(repr=False)
    tokenizer_folder: str
    end_of_turn: tuple[str, ...]
    saved_ends: tuple[int, ...]
    dtype: str | None
    context: int | None
    quantized: bool

    @property
    def end_ids(self) -> list[int]:
        """Ids of the tokens at which generation stops, as in evaluation during training.

        Raises:
            ConfigError: The chat template does not end turns, see `ChatRenderer`.
        """
        from dataset_builders.masks.chat import ChatRenderer

        tokens = ChatRenderer(self.tokenizer, self.end_of_turn).end_tokens
        ids = {int(self.tokenizer.convert_tokens_to_ids(token)) for token in tokens}
        return sorted(ids | set(self.saved_ends))

    def tool_parser(self) -> str | None:
        """Return the name of vLLM's parser for the tool calls that the chat template writes.

        Returns:
            None if the template writes no calls, or vLLM has no parser for them.
        """
        from dataset_builders.formats.spelled_calls import vllm_parser
        from dataset_builders.masks.call_spelling import find_call_spelling
        from dataset_builders.masks.chat import ChatRenderer

        try:
            renderer = ChatRenderer(self.tokenizer, self.end_of_turn)
            spelling = find_call_spelling(self.tokenizer, renderer)
        except ConfigError:  # An old transformers reads no calls.
            return None
        return None if spelling is None else vllm_parser(spelling.name)


def read_run(folder: Path, merged: Path | None = None) -> TrainedModel:
    """Read what is needed to serve a run's model.

    Args:
        folder: Output folder of a run, an adapter's folder, or a merged or other model's folder.
        merged: Folder of the run's merged model, to serve instead.

    Raises:
        SourceNotFoundError: A folder is missing or holds no model.
        ConfigError: A config cannot be read.
        MissingExtraError: transformers is not installed.
    """
    for place in (folder, merged):
        if place is not None and not place.is_dir():
            raise SourceNotFoundError(f"{place}: no such folder")
    served = (merged or folder).absolute()
    adapter = read_adapter(served) if (served / ADAPTER_CONFIG).is_file() else None
    if adapter is None and not (served / CONFIG).is_file():
        raise SourceNotFoundError(
            f"{served}: found neither {ADAPTER_CONFIG} nor {CONFIG}, expected the output folder of "
            "a run or a merged model"
        )
    if merged is not None and adapter is not None:
        raise ConfigError(f"{merged}: found an adapter, expected a merged model")
    base = str(served) if adapter is None else _absolute(adapter.base)
    own = served if (served / _TOKENIZER_CONFIG).is_file() else base
    run, whole = _json_of(served / CONFIG), _config_of(base)
    manifest = _json_of(folder / MANIFEST_FILE)
    encoding = manifest.get("encoding") or {}
    return TrainedModel(
        folder=served,
        base=base,
        adapter=adapter,
        tokenizer=load_tokenizer(str(own)),
        tokenizer_folder=str(own),
        end_of_turn=tuple(encoding.get("end_of_turn") or ()),
        saved_ends=() if manifest or adapter else saved_ends(served),
        dtype=_dtype(run) or _dtype(whole),
        context=_context(whole, encoding.get("max_length")),
        quantized=bool(run.get("quantization_config")) and adapter is not None,
    )


def saved_ends(folder: Path) -> tuple[int, ...]:
    """Return the ids of end tokens in the generation config of a model's folder."""
    found = _json_of(folder / GENERATION_CONFIG).get("eos_token_id")
    return tuple(found) if isinstance(found, list) else () if found is None else (found,)


def _absolute(place: str) -> str:
    """Return a folder's absolute path; a hub id stays."""
    found = Path(place).expanduser()
    return str(found.absolute()) if found.is_dir() else place


def _config_of(model: str) -> dict[str, Any]:
    """Return the config of a model in a folder or on the hub."""
    with needs_extra("eval"):
        from transformers import AutoConfig
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(model).to_dict()
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise SourceNotFoundError(f"{model}: its config cannot be loaded: {line}") from error
    return config


def _dtype(config: dict[str, Any]) -> str | None:
    for part in (config, config.get("text_config") or {}):
        found = part.get("dtype") or part.get("torch_dtype")
        if found:
            return str(found).removeprefix("torch.")
    return None


def _context(config: dict[str, Any], trained: int | None) -> int | None:
    text = config.get("text_config") or config
    most = text.get("max_position_embeddings")
    return min(int(most), max(_CONTEXT, trained or 0)) if most else None


def _json_of(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: found no JSON: {error}") from error
    return found if isinstance(found, dict) else {}
