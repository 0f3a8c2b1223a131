"""Triple stores that answer SPARQL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dataset_builders.environments.knowledge_graph.facts import Facts, facts_digest, load_facts
from dataset_builders.errors import MissingExtraError

if TYPE_CHECKING:
    import pyoxigraph

NAMESPACE = "http://rdf.freebase.com/ns/"
EXPECTED_TYPE = "type.property.expected_type"
"""Freebase's relation that maps a relation to the type of its tails."""

INTEGER = "type.int"
NUMBERS = frozenset({INTEGER, "type.float", "type.datetime"})
"""Ordered types; a relation to one of them is an attribute."""

_XSD_INTEGER = "http://www.w3.org/2001/XMLSchema#integer"


class Graph(Protocol):
    """A store of triples."""

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """Run a SPARQL SELECT.

        Args:
            query: Standard SPARQL 1.1.

        Returns:
            The values of every solution, in the order of the selected variables; nodes without
            Freebase's namespace, unbound values as "".

        Raises:
            EnvironmentFailureError: The store failed, not because of the query.
        """


class EmbeddedGraph:
    """A slice in memory, in pyoxigraph.

    Raises:
        MissingExtraError: pyoxigraph is not installed.
    """

    def __init__(self, facts: Facts) -> None:
        self.store = _engine().Store()
        self.store.bulk_extend(_quads(facts))

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """See `Graph.rows`."""
        solutions: Any = self.store.query(query)
        return [
            tuple("" if term is None else term.value.removeprefix(NAMESPACE) for term in solution)
            for solution in solutions
        ]


def load_graph(folder: Path) -> EmbeddedGraph:
    """Return the graph of a slice; an unchanged slice is loaded once per process.

    Raises:
        DataError: A file of the slice is invalid.
        MissingExtraError: pyoxigraph is not installed.
    """
    return _load(folder.resolve(), facts_digest(folder))


@cache
def _load(folder: Path, digest: str) -> EmbeddedGraph:
    # Not persisted: loading 38,001 triples takes half a second.
    del digest
    return EmbeddedGraph(load_facts(folder))


def engine_missing() -> str:
    """Return what must be installed for `EmbeddedGraph`, in one line; "" if nothing."""
    try:
        import pyoxigraph  # noqa: F401
    except ImportError:
        return (
            "knowledge_graph: pyoxigraph is not installed: "
            "pip install 'agenttuning-plugin[knowledge-graph]'"
        )
    return ""


def _engine() -> Any:
    if missing := engine_missing():
        raise MissingExtraError(missing)
    import pyoxigraph

    return pyoxigraph


def _quads(facts: Facts) -> Iterator[pyoxigraph.Quad]:
    engine = _engine()
    integer = engine.NamedNode(_XSD_INTEGER)

    @cache
    def node(name: str) -> Any:
        return engine.NamedNode(NAMESPACE + name)

    for head, by in facts.edges.items():
        for relation, tails in by.items():
            for tail in tails:
                yield engine.Quad(node(head), node(relation), node(tail))
    for attribute, values in facts.degrees.items():
        yield engine.Quad(node(attribute), node(EXPECTED_TYPE), node(INTEGER))
        for head, value in values.items():
            literal = engine.Literal(str(value), datatype=integer)
            yield engine.Quad(node(head), node(attribute), literal)
    for relation, tail_type in facts.ranges.items():
        yield engine.Quad(node(relation), node(EXPECTED_TYPE), node(tail_type))
