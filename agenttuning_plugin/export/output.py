"""Output folder of a merge: room on disk, tokenizer, generation config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agenttuning_plugin.export.trained import TrainedModel
from dataset_builders.errors import ConfigError, SourceNotFoundError, StorageError
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.masks.template_variables import set_template_variables

_MARGIN = 64 * 1024**2
"""Bytes for tokenizer, config and card."""
_COPIED = (".safetensors", ".bin", ".py", ".model")


@contextmanager
def new_folder(out: Path, size: int) -> Iterator[Path]:
    """Yield a temporary folder that becomes the output folder only if nothing fails.

    Args:
        out: The output folder; absent or empty.
        size: Bytes that will be written.

    Raises:
        ConfigError: The output folder is not empty.
        StorageError: There is not enough room on the disk, or it cannot be written.
    """
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ConfigError(f"{out}: not empty, expected a new folder (`out`)")
    stage = out.with_name(f".{out.name}.merging")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(stage, ignore_errors=True)
        free = shutil.disk_usage(out.parent).free
        if free < size + _MARGIN:
            raise StorageError(
                f"{out}: found {_gib(free)} free on the disk, expected {_gib(size + _MARGIN)}"
            )
        stage.mkdir()
        yield stage
        if out.exists():
            out.rmdir()
        stage.rename(out)
    except OSError as error:
        if isinstance(error, StorageError | SourceNotFoundError):
            raise
        raise StorageError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def load_run_tokenizer(trained: TrainedModel) -> Any:
    """Load the tokenizer of the run, with the chat template that it trained on.

    Raises:
        SourceNotFoundError: There is none.
    """
    from transformers import AutoTokenizer

    places: list[str] = [str(trained.folder), str(trained.run), trained.base]
    places = [each for each in places if (Path(each) / "tokenizer_config.json").is_file()]
    place = places[0] if places else trained.base
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise SourceNotFoundError(f"{place or trained.folder}: no tokenizer: {error}") from error
    section = (trained.record.get("recipe") or {}).get("section") or {}
    if place == trained.base and section.get("chat_template"):
        tokenizer.chat_template = load_template(section["chat_template"])
        set_template_variables(tokenizer, section.get("chat_template_kwargs") or {})
    return tokenizer


def load_generation_config(model: str, revision: str | None) -> Any:
    """Load the generation config of a model in a folder or on the hub; None if it has none."""
    from transformers import GenerationConfig

    kind: Any = GenerationConfig
    try:
        return kind.from_pretrained(model, **({"revision": revision} if revision else {}))
    except (OSError, ValueError):
        return None


def save_generation_config(
    trained: TrainedModel, tokenizer: Any, config: Any, out: Path
) -> list[int]:
    """Write `generation_config.json` with every token that ends a turn.

    Args:
        trained: The trained model.
        tokenizer: Its tokenizer.
        config: The model's config.
        out: Folder to write to.

    Returns:
        The ids of the end tokens.

    Raises:
        ConfigError: A token of the recipe is not in the tokenizer.
    """
    from transformers import GenerationConfig

    from evaluators.models.model_info import stated_end_ids

    kind: Any = GenerationConfig
    generation = load_generation_config(trained.base or str(trained.folder), trained.revision)
    if generation is None:
        generation = kind.from_model_config(config)
    own = stated_end_ids(generation)
    ids = []
    for token in (tokenizer.eos_token, *trained.end_of_turn):
        number = tokenizer.convert_tokens_to_ids(token) if token else None
        if number is None or number == tokenizer.unk_token_id != tokenizer.eos_token_id:
            raise ConfigError(f"{trained.run}: end of turn: found {token!r}, expected one token")
        ids.append(int(number))
    # As an evaluation does: a hand-written config may list an ordinary word.
    ids += [each for each in own if each in tokenizer.added_tokens_decoder]
    ids = list(dict.fromkeys(ids))
    generation.eos_token_id = ids if len(ids) > 1 else ids[0]
    generation.bos_token_id = tokenizer.bos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    if not generation.do_sample and generation.temperature not in (None, 1.0):
        generation.do_sample = True  # else it is refused when it is saved
    generation.save_pretrained(out)
    return ids


def copy_weights(folder: Path, out: Path) -> None:
    """Copy the weights and config of a whole model."""
    for file in sorted(folder.iterdir()):
        wanted = file.suffix in _COPIED or file.name.endswith(".index.json")
        if not file.is_file() or not wanted or file.name == "training_args.bin":
            continue
        # No hard link: a later run in the same folder would write into it.
        shutil.copy2(file, out / file.name)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["use_cache"] = True  # Training turns it off.
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def weights_size(folder: Path) -> int:
    """Return the bytes of a folder's weights."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _COPIED)
    return 0


def _gib(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
