"""Read a slice of Freebase from its folder.

Freebase's ontology is not part of a slice, so two things are derived from it. The type of
a relation's tails is the type that most of them have by their own relations. And since a
slice of entities has no numbers, the number of an entity's edges of a relation serves as
an attribute, `degree.<relation>`: valid for the slice, not for the world.
"""

from __future__ import annotations

import hashlib
import lzma
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dataset_builders.environments.knowledge_graph.relations import (
    DEGREE,
    guessed_type,
    head_type,
    relation_name,
)
from dataset_builders.errors import DataError

TRIPLES = "triples.tsv.xz"
LABELS = "labels.tsv.xz"

_MIN_SPREAD = 3  # An attribute that is 1 or 2 everywhere cannot rank anything.


@dataclass(frozen=True)
class Facts:
    """Contents of a slice.

    Attributes:
        labels: Entity to its English name.
        edges: Entity to relation to the tails, sorted.
        ranges: Relation to the type of its tails.
        degrees: Attribute to entity to value; see the module.
    """

    labels: Mapping[str, str]
    edges: Mapping[str, Mapping[str, Sequence[str]]]
    ranges: Mapping[str, str]
    degrees: Mapping[str, Mapping[str, int]]


def facts_digest(folder: Path) -> str:
    """Return the SHA-256 of a slice's files, in hexadecimal."""
    digest = hashlib.sha256()
    for name in (TRIPLES, LABELS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def load_facts(folder: Path) -> Facts:
    """Read a slice; an unchanged folder is read once per process.

    Args:
        folder: Holds `triples.tsv.xz` (head, relation path, tail) and `labels.tsv.xz`
            (entity, name), tab-separated and compressed with xz.

    Raises:
        DataError: A line has another number of fields, or a file is not compressed text.
    """
    return _load(folder.resolve(), facts_digest(folder))


@cache
def _load(folder: Path, digest: str) -> Facts:
    del digest  # Only part of the cache key.
    labels = {_identifier(entity): name for entity, name in _read(folder / LABELS, 2)}
    edges: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for head, path, tail in _read(folder / TRIPLES, 3):
        edges[_identifier(head)][relation_name(path)].add(_identifier(tail))
    ordered = {
        head: {relation: tuple(sorted(tails)) for relation, tails in sorted(by.items())}
        for head, by in sorted(edges.items())
    }
    return Facts(labels, ordered, _infer_ranges(ordered), _count_degrees(ordered))


def _identifier(path: str) -> str:
    return path.strip("/").replace("/", ".")


def _read(path: Path, columns: int) -> Iterator[list[str]]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\n").split("\t")
                if len(fields) != columns or not all(fields):
                    raise DataError(
                        f"{path}: line {number}: found {len(fields)} fields, expected {columns}, "
                        "none of them empty"
                    )
                yield fields
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected UTF-8 text compressed with xz: {error}") from error


def _infer_ranges(edges: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, str]:
    types = {head: {head_type(relation) for relation in by} for head, by in edges.items()}
    population = Counter(each for of_head in types.values() for each in of_head)
    tails: defaultdict[str, set[str]] = defaultdict(set)
    for by in edges.values():
        for relation, found in by.items():
            tails[relation].update(found)
    ranges = {}
    for relation, reached in sorted(tails.items()):
        counts = Counter(each for tail in reached for each in types.get(tail, ()))
        # Of two equally fitting types, the rarer one is more specific.
        best = max(counts, key=lambda each: (counts[each], -population[each], each), default="")
        ranges[relation] = best if counts[best] * 2 >= len(reached) else guessed_type(relation)
    return ranges


def _count_degrees(
    edges: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, dict[str, int]]:
    degrees: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for head, by in edges.items():
        for relation, tails in by.items():
            degrees[DEGREE + relation][head] = len(tails)
    return {name: values for name, values in degrees.items() if max(values.values()) >= _MIN_SPREAD}
