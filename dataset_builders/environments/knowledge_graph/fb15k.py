"""Convert the published files of FB15k-237 to a slice that the environment reads."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dataset_builders.environments.knowledge_graph.facts import LABELS, TRIPLES
from dataset_builders.errors import DataError

FOLDER = "fb15k-237"
_TRIPLE_FILES = ("valid.txt", "test.txt")
_NAMES = "entity2wikidata.json"
_BREAKS = re.compile(r"[\t\r\n]+")


def convert(folder: Path, say: Callable[[str], None]) -> None:
    """Write `triples.tsv.xz` and `labels.tsv.xz` from the files in `fb15k-237`, if they are there.

    The validation and test triples are used: about 38,000, which load in half a second. Entities
    without a name keep their identifier.

    Args:
        folder: The data folder; a slice in it is kept.
        say: Called with a message.

    Raises:
        DataError: A file does not follow its format.
        OSError: The slice cannot be written.
    """
    source = folder / FOLDER
    files = [source / name for name in (*_TRIPLE_FILES, _NAMES)]
    if (folder / TRIPLES).is_file() or not all(file.is_file() for file in files):
        return
    triples = list(_triples(files[:-1]))
    entities = {entity for head, _, tail in triples for entity in (head, tail)}
    _write(folder / LABELS, sorted(row for row in _names(files[-1]) if row[0] in entities))
    # Last, because the slice counts as present once both are there.
    _write(folder / TRIPLES, triples)
    say(f"knowledge_graph: converted {source} to {TRIPLES} and {LABELS}")


def _triples(files: Iterable[Path]) -> Iterator[tuple[str, ...]]:
    for file in files:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            fields = tuple(line.split("\t"))
            if len(fields) != 3 or not all(fields):
                empty = ", one empty" if len(fields) == 3 else ""
                raise DataError(
                    f"{file}: line {number}: found {len(fields)} fields{empty}, expected head, "
                    "relation and tail separated by tabs"
                )
            yield fields


def _names(file: Path) -> Iterator[tuple[str, str]]:
    try:
        entries = json.loads(file.read_bytes())
        for entity, facts in entries.items():
            if label := _BREAKS.sub(" ", str(facts.get("label") or "")).strip():
                yield entity, label
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: {error}, expected entities with a label") from error


def _write(target: Path, rows: Iterable[tuple[str, ...]]) -> None:
    part = target.with_name(f".{target.name}.part")
    with lzma.open(part, "wt", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join(row) + "\n" for row in rows)
    part.replace(target)
