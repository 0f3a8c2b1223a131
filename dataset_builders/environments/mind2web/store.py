"""Indexed store of steps, since Mind2Web's own files take gigabytes."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from dataset_builders.environments.mind2web.ranks import find_ranks, read_ranks
from dataset_builders.environments.mind2web.steps import Step, read_steps, split_files
from dataset_builders.errors import DataError
from dataset_builders.storage import cache_folder

TOP_K = 10
"""Number of top-ranked candidates of a step that are used."""

_SCHEMA = "1"  # Version of the store's format; increase it when the format changes.


class StepStore:
    """The steps of a folder, indexed by id.

    Built on first use, in the cache, and rebuilt when a file of the folder changes.

    Args:
        folder: Folder of Mind2Web's files.
        say: Called with progress messages.

    Raises:
        DataError: A file is invalid.
        SourceNotFoundError: Ranks are present only as a pickle.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] | None = None) -> None:
        files, ranks = split_files(folder), find_ranks(folder)
        named = [path for paths in files.values() for path in paths]
        digest = _digest(folder, [*named, *([ranks] if ranks else [])])
        self.folder = folder
        self._path = cache_folder("mind2web") / f"steps-{digest}.sqlite"
        if not self._path.is_file():
            _make(self._path, files, ranks, say or (lambda _: None))

    def ids(self, split: str, *, solvable: bool = False) -> tuple[str, ...]:
        """Return the ids of a split's steps, in file order.

        Args:
            split: One of `steps.SPLITS`.
            solvable: Leave out those without a right element, or nothing to choose from.
        """
        query = "SELECT id FROM steps WHERE split = ? AND solvable >= ? ORDER BY position"
        with closing(self._open()) as database:
            return tuple(row[0] for row in database.execute(query, (split, int(solvable))))

    def step(self, split: str, identifier: str) -> tuple[Step, bool] | None:
        """Return a step, and whether its candidates are ranked; None if it does not exist."""
        query = "SELECT body, ranked FROM steps WHERE split = ? AND id = ?"
        with closing(self._open()) as database:
            row = database.execute(query, (split, identifier)).fetchone()
        if row is None:
            return None
        fields = json.loads(zlib.decompress(row[0]))
        for name in ("previous", "positives", "negatives"):
            fields[name] = tuple(fields[name])
        return Step(**fields), bool(row[1])

    def _open(self) -> sqlite3.Connection:
        # One per look-up: a connection belongs to the thread that opened it.
        return sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True)


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(_SCHEMA.encode())
    for path in files:
        facts = path.stat()
        name = path.relative_to(folder).as_posix()
        digest.update(json.dumps([name, facts.st_size, facts.st_mtime_ns]).encode())
    return digest.hexdigest()[:16]


def _make(
    target: Path,
    files: Mapping[str, Sequence[Path]],
    ranks: Path | None,
    say: Callable[[str], None],
) -> None:
    order = read_ranks(ranks) if ranks else None
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with closing(sqlite3.connect(part)) as database, database:
            database.execute(
                "CREATE TABLE steps (split TEXT, position INTEGER PRIMARY KEY, id TEXT, "
                "ranked INTEGER, solvable INTEGER, body BLOB, UNIQUE (split, id))"
            )
            for split, paths in files.items():
                for path in paths:
                    say(f"mind2web: reading {path}")
                    _store(database, split, path, order)
                query = "SELECT count(*), sum(solvable) FROM steps WHERE split = ?"
                steps, solvable = database.execute(query, (split,)).fetchone()
                say(
                    f"mind2web: {split}: {steps} steps, {solvable or 0} of them with a right "
                    "element among the candidates"
                )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _store(
    database: sqlite3.Connection,
    split: str,
    path: Path,
    order: Mapping[str, Sequence[str]] | None,
) -> None:
    for step in read_steps(path):
        if order is not None:
            likely = order.get(step.id)
            if likely is None:
                raise DataError(f"{path}: {step.id}: found no ranks for it in the file of ranks")
            step = _likeliest(step, set(likely[:TOP_K]))
        body = zlib.compress(json.dumps(asdict(step)).encode("utf-8", "surrogatepass"))
        solvable = bool(step.positives) and len(step.positives) + len(step.negatives) > 1
        try:
            database.execute(
                "INSERT INTO steps (split, id, ranked, solvable, body) VALUES (?, ?, ?, ?, ?)",
                (split, step.id, order is not None, solvable, body),
            )
        except sqlite3.IntegrityError:
            raise DataError(f"{path}: {step.id}: found twice in split {split}") from None


def _likeliest(step: Step, likely: set[str]) -> Step:
    return replace(
        step,
        positives=tuple(each for each in step.positives if each in likely),
        negatives=tuple(each for each in step.negatives if each in likely),
    )
