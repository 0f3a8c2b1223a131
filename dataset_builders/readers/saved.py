"""Read folders written by `datasets.save_to_disk` or by `agenttuning build`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_builders.errors import ConfigError, DataError
from dataset_builders.readers.splits import is_evaluation

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_MANIFEST = "manifest.json"

Saved = tuple[tuple[Path, ...], tuple[str, ...]]


def saved_files(
    root: Path, splits: Sequence[str] | None, path: str, *, all_splits: bool = False
) -> Saved | None:
    """Locate the data files of a folder that `datasets.save_to_disk` wrote.

    Args:
        root: The folder.
        splits: Splits to read; None or empty: all that are not for evaluation.
        path: The source, for errors.
        all_splits: Whether no `splits` means all of them.

    Returns:
        Files in Arrow's format and the splits left out because they are for evaluation, or
        None where it is another kind of folder.

    Raises:
        ConfigError: A split is not there.
        DataError: It is a mix that `agenttuning build` made, or the folder is damaged.
    """
    if (root / _SPLITS).is_file():
        names = _names(root / _SPLITS)
        unknown = [split for split in splits or () if split not in names]
        if unknown:
            raise ConfigError(f"{path}: no split {', '.join(unknown)}; found {', '.join(names)}")
        wanted = [name for name in names if all_splits or not is_evaluation(name)]
        chosen = list(splits or ()) or wanted or names
        left_out = () if splits else tuple(name for name in names if name not in chosen)
        return tuple(file for name in chosen for file in _files(root / name)), left_out
    if not (root / _STATE).is_file():
        return None
    if (root / _MANIFEST).is_file():
        raise DataError(
            f"{path}: found a mix that agenttuning build made, expected a source; use the sources "
            "that it was made from, or train on it directly with datasets.load_from_disk"
        )
    own = _content(root / _STATE).get("_split") or "train"
    if any(split != own for split in splits or ()):
        raise ConfigError(f"{path}: splits: found {', '.join(splits or ())}, expected {own}")
    return _files(root), ()


def _names(file: Path) -> list[str]:
    names = _content(file).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: splits: found {names!r:.40}, expected a list of names")
    return names


def _files(folder: Path) -> tuple[Path, ...]:
    listed = _content(folder / _STATE).get("_data_files")
    names = [item.get("filename") for item in listed or () if isinstance(item, dict)]
    files = tuple(folder / name for name in names if isinstance(name, str))
    missing = [file.name for file in files if not file.is_file()]
    if not files or missing:
        found = f"no {', '.join(missing)}" if missing else "no data file"
        raise DataError(f"{folder}: found {found}, expected what save_to_disk wrote; save it again")
    return files


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}); save it again") from error
    return content if isinstance(content, dict) else {}
