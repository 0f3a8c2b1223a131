"""Relations and their tail types, from AgentBench's files or from the graph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataset_builders.environments.knowledge_graph.graph import (
    EXPECTED_TYPE,
    NAMESPACE,
    NUMBERS,
    Graph,
)
from dataset_builders.environments.knowledge_graph.variables import Program, around_query
from dataset_builders.errors import DataError

VOCABULARY = "vocab.json"
ROLES = "fb_roles"


class Ontology(Protocol):
    """Lists what can be followed from a set of entities."""

    def relations(self, graph: Graph, program: Program) -> dict[str, str]:
        """Return relations from members to entities, each with the type of its tails."""

    def attributes(self, graph: Graph, program: Program) -> tuple[str, ...]:
        """Return relations from members to numbers and dates."""


class GraphOntology:
    """The graph's own ontology, by `type.property.expected_type` as in Freebase."""

    def relations(self, graph: Graph, program: Program) -> dict[str, str]:
        """See `Ontology.relations`."""
        return {name: kind for name, kind in _typed(graph, program) if kind not in NUMBERS}

    def attributes(self, graph: Graph, program: Program) -> tuple[str, ...]:
        """See `Ontology.attributes`."""
        return tuple(name for name, kind in _typed(graph, program) if kind in NUMBERS)


def _typed(graph: Graph, program: Program) -> list[tuple[str, ...]]:
    query = (
        f"SELECT ?relation ?kind WHERE {{ {{ {around_query(program)} }} "
        f"?relation <{NAMESPACE}{EXPECTED_TYPE}> ?kind }}"
    )
    # AgentBench's order is that of a set of strings, which changes from run to run.
    return sorted(graph.rows(query))


@dataclass(frozen=True, slots=True)
class FileOntology:
    """AgentBench's `ontology` folder, with which the published scores were computed.

    Attributes:
        known: Relations to show.
        numeric: Relations that are attributes.
        ranges: Relation to the type of its tails.
    """

    known: frozenset[str]
    numeric: frozenset[str]
    ranges: dict[str, str]

    def relations(self, graph: Graph, program: Program) -> dict[str, str]:
        """See `Ontology.relations`."""
        return {name: self.ranges.get(name, "") for name in _around(graph, program) & self.known}

    def attributes(self, graph: Graph, program: Program) -> tuple[str, ...]:
        """See `Ontology.attributes`."""
        return tuple(sorted(_around(graph, program) & self.numeric))


def _around(graph: Graph, program: Program) -> set[str]:
    return {row[0] for row in graph.rows(around_query(program))}


def read_ontology(folder: Path) -> FileOntology | None:
    """Read a folder with `vocab.json` and `fb_roles`; None if it lacks either.

    Raises:
        DataError: A file differs from AgentBench's format.
    """
    vocabulary, roles = folder / VOCABULARY, folder / ROLES
    if not (vocabulary.is_file() and roles.is_file()):
        return None
    try:
        content = json.loads(vocabulary.read_text("utf-8"))
        known, numeric = frozenset(content["relations"]), frozenset(content["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{vocabulary}: expected lists named relations and attributes: {error!r}"
        ) from error
    ranges = {}
    for number, line in enumerate(roles.read_text("utf-8").splitlines(), 1):
        fields = line.split()
        if len(fields) != 3:
            raise DataError(
                f"{roles}: line {number}: found {len(fields)} words, "
                "expected domain, relation and range"
            )
        ranges[fields[1]] = fields[2]
    return FileOntology(known, numeric, ranges)
