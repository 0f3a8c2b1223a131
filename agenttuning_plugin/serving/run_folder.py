"""Read from a run's folder how its model is served: base, template, end tokens, tool calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agenttuning_plugin.export.output import load_generation_config, load_run_tokenizer
from agenttuning_plugin.export.trained import TrainedModel, find_trained
from agenttuning_plugin.export.weights import load_config
from agenttuning_plugin.serving.adapter import Adapter
from dataset_builders.errors import ConfigError
from dataset_builders.extras import needs_extra
from dataset_builders.stdio import silenced

GENERATION_CONFIG = "generation_config.json"

_CONTEXT = 16384
"""Default limit of tokens per request, where the model has more: the cache of one request at a
context of 131,072 would not fit many GPUs."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A trained model, and what a server needs to render and end its turns as in training.

    Attributes:
        folder: Folder of the adapter or of the whole model, absolute.
        base: Folder or hub id of the weights to load: the adapter's base, or `folder`.
        revision: Revision of the hub id.
        adapter: The adapter; None for a whole model.
        tokenizer: The run's, with the chat template of training.
        end_of_turn: Tokens besides eos that end a turn.
        saved_ends: Ids of end tokens in the base's generation config.
        dtype: Such as "float32"; None if no config states it.
        context: Tokens of prompt and answer together that the server has to accept; None if the
            config does not state the model's maximum.
        is_quantized: Whether the base was quantised in training, and is not here.
    """

    folder: Path
    base: str
    revision: str | None
    adapter: Adapter | None
    tokenizer: Any = field(repr=False)
    end_of_turn: tuple[str, ...]
    saved_ends: tuple[int, ...]
    dtype: str | None
    context: int | None
    is_quantized: bool

    @property
    def end_ids(self) -> list[int]:
        """Ids of the tokens at which an evaluation in this process stops.

        Raises:
            ConfigError: The chat template does not end turns, see `ChatRenderer`.
        """
        from dataset_builders.masks.chat import ChatRenderer

        tokens = ChatRenderer(self.tokenizer, self.end_of_turn).end_tokens
        ids = {int(self.tokenizer.convert_tokens_to_ids(token)) for token in tokens}
        # As `ChatModel`: a hand-written generation config may list an ordinary word.
        return sorted(ids | (set(self.saved_ends) & set(self.tokenizer.added_tokens_decoder)))

    @property
    def tokenizer_place(self) -> str:
        """Folder, absolute, or hub id of the tokenizer."""
        return _absolute(str(self.tokenizer.name_or_path))

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


def read_run(place: Path, merged: Path | None = None) -> ServedModel:
    """Read what is needed to serve a run's model.

    Args:
        place: Output folder of a run, one of its checkpoints, an adapter's folder, or the folder of
            a whole model.
        merged: Folder of the run's merged model, to serve instead.

    Raises:
        SourceNotFoundError: A folder is missing or holds no model.
        ConfigError: As `find_trained`; or `merged` holds an adapter.
        MissingExtraError: transformers is not installed.
    """
    run = find_trained(place)
    served = run if merged is None else find_trained(merged)
    if merged is not None and served.adapter:
        raise ConfigError(f"{merged}: found an adapter, expected a merged model")
    base = _absolute(served.base or str(served.folder))
    with needs_extra("eval"), silenced():
        import transformers

        _ = transformers.AutoTokenizer, transformers.GenerationConfig
    config = load_config(base, served.revision)
    return ServedModel(
        folder=served.folder.absolute(),
        base=base,
        revision=served.revision,
        adapter=Adapter(served.folder.absolute(), dict(served.adapter)) if served.adapter else None,
        tokenizer=load_run_tokenizer(served),
        end_of_turn=run.end_of_turn,
        saved_ends=saved_ends(base, served.revision),
        dtype=_dtype(run, config),
        context=_context(config),
        is_quantized=bool(served.quantization),
    )


def saved_ends(model: str, revision: str | None = None) -> tuple[int, ...]:
    """Return the ids of end tokens in the generation config of a model; empty without one."""
    from evaluators.models.model_info import stated_end_ids

    return stated_end_ids(load_generation_config(model, revision))


def _absolute(place: str) -> str:
    """Return a folder's absolute path; a hub id stays."""
    found = Path(place).expanduser()
    return str(found.absolute()) if found.is_dir() else place


def _dtype(run: TrainedModel, config: Any) -> str | None:
    found = run.dtype or getattr(config.get_text_config(), "dtype", None) or config.dtype
    return str(found).removeprefix("torch.") if found else None


def _context(config: Any) -> int | None:
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(int(most), _CONTEXT) if most else None
