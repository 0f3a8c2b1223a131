"""Default choice of splits: all except evaluation splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dataset_builders.errors import ConfigError
from dataset_builders.readers.records import split_of

# The words by which `datasets` itself recognizes splits in file names, between non-letters.
_EVALUATION = re.compile(
    r"(?i)(?:^|[^a-z])(?:test|testing|validation|valid|val|dev|eval|evaluation)(?:[^a-z]|$)"
)


def is_evaluation(split: str) -> bool:
    """Whether a split's name marks it as an evaluation split, such as "test_sft"."""
    return _EVALUATION.search(split) is not None


def select_splits(
    files: Sequence[Path], splits: Sequence[str] | None, path: str
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Select the files of the chosen splits.

    Args:
        files: Data files of a source.
        splits: Splits to read; None or empty: all but those for evaluation, unless there is
            nothing else.
        path: The source, for errors.

    Returns:
        The files to read, and the splits left out because they are for evaluation.

    Raises:
        ConfigError: A split is not there.
    """
    if not splits:
        kept = tuple(file for file in files if not is_evaluation(split_of(file)))
        if not kept:
            return tuple(files), ()
        names = {split_of(file): None for file in files if file not in kept}
        return kept, tuple(names)
    found = sorted({split_of(file) for file in files})
    unknown = [split for split in splits if split not in found]
    if unknown:
        raise ConfigError(f"{path}: no split {', '.join(unknown)}; found {', '.join(found)}")
    return tuple(file for file in files if split_of(file) in splits), ()
