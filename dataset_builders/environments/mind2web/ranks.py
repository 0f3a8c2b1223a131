"""Candidate ranks of page elements, as published by Mind2Web.

They are published as a pickle, which runs code when it is read; it is therefore not read.
`docs/tasks/held-in/mind2web.md` has the lines that turn it into JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError, SourceNotFoundError

RANK_FILES = ("ranks.parquet", "ranks.json")
PICKLE = "scores_all_data.pkl"
HINT = f"convert {PICKLE} to ranks.json as docs/tasks/held-in/mind2web.md says"


def find_ranks(folder: Path) -> Path | None:
    """Return the file of ranks, or None if there is none.

    Raises:
        SourceNotFoundError: Only the pickle is present.
    """
    for name in RANK_FILES:
        if found := sorted(folder.rglob(name)):
            return found[0]
    if pickles := sorted(folder.rglob(PICKLE)):
        raise SourceNotFoundError(
            f"mind2web: {pickles[0]} is a pickle, which runs code when it is loaded: {HINT}"
        )
    return None


def read_ranks(path: Path) -> Mapping[str, list[str]]:
    """Read ranks.

    Args:
        path: JSON of `{"<annotation_id>_<action_uid>": [backend_node_id, ...]}`, highest rank
            first, or parquet of the columns `step` and `candidates`.

    Raises:
        DataError: The file is neither.
    """
    try:
        found = _read_parquet(path) if path.suffix == ".parquet" else json.loads(path.read_bytes())
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: found {type(found).__name__}, expected an object")
    for step, candidates in found.items():
        if not isinstance(candidates, list) or not all(isinstance(c, str) for c in candidates):
            raise DataError(f"{path}: {step}: expected a list of backend_node_id, as text")
    return found


def _read_parquet(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    columns = pq.read_table(path, columns=["step", "candidates"]).to_pydict()
    return dict(zip(columns["step"], columns["candidates"], strict=True))
