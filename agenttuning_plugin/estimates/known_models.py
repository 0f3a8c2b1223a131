"""Configurations of models: a folder's, the hub's as far as it is cached, or a stored one's."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError
from dataset_builders.stdio import silenced

_FOLDER = Path(__file__).parent / "model_configs"


@cache
def stored_models() -> dict[str, dict[str, Any]]:
    """Return what is stored of each known model, by its name on the hub.

    An entry has `config`, the sizes among the model's own settings, `parameters`, and `source`.
    """
    entries = [
        entry
        for path in sorted(_FOLDER.glob("*.json"))
        for entry in json.loads(path.read_text("utf-8"))
    ]
    return {name: entry for entry in entries for name in entry["names"]}


def model_config_of(base_model: str) -> Any:
    """Return the transformers configuration of a model, without its weights.

    Of a folder, or of the hub's cache; else a stored one; else it is downloaded.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    from transformers import AutoConfig

    path = Path(base_model).expanduser()
    if path.is_dir() or base_model.startswith((".", "/", "~")):
        return _read(str(path), local_files_only=True)
    try:
        return _read(base_model, local_files_only=True)
    except ConfigError:
        stored = stored_models().get(base_model)
    if stored is None:
        return _read(base_model, local_files_only=False)
    settings = dict(stored["config"])
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def _read(name: str, *, local_files_only: bool) -> Any:
    from transformers import AutoConfig

    try:
        with silenced():
            return AutoConfig.from_pretrained(name, local_files_only=local_files_only)
    except Exception as error:  # of the hub, of JSON, or of the configuration's own code
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"base_model: {name}: no configuration found: {reason}") from error
