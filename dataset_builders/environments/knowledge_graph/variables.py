"""Variables: sets of entities, represented by the program that computes them.

A program is translated to SPARQL only when its result is needed, as in AgentBench. The translation
equals AgentBench's `lisp_to_sparql` for the same calls: topic entities are never part of a result,
and all entities that share the largest value are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from dataset_builders.environments.knowledge_graph.graph import NAMESPACE


@dataclass(frozen=True, slots=True)
class Entity:
    """A named node, such as `m.02mjmr`."""

    identifier: str


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Entities that a relation leads to."""

    source: Program
    relation: str


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection of two sets."""

    first: Program
    second: Program


@dataclass(frozen=True, slots=True)
class Extreme:
    """The members with the largest or the smallest value of an attribute."""

    source: Program
    attribute: str
    largest: bool


@dataclass(frozen=True, slots=True)
class Number:
    """Size of a set."""

    source: Program


Program = Entity | Neighbors | Both | Extreme | Number


@dataclass(frozen=True, slots=True)
class Variable:
    """A set created in an episode.

    Attributes:
        type: Type of its members, such as "film.film".
        program: The program that computes them.
    """

    type: str
    program: Program


def members_query(program: Program) -> str:
    """Return SPARQL for the members of a set, or for their number."""
    if isinstance(program, Number):
        inner = members_query(program.source)
        return f"SELECT (COUNT(DISTINCT ?x) AS ?number) WHERE {{ {{ {inner} }} }}"
    return (
        f"SELECT DISTINCT ?x WHERE {{ {_where(program, '?x', _names())} {_others(program, '?x')} }}"
    )


def around_query(program: Program) -> str:
    """Return SPARQL for the relations and attributes of a set's members."""
    if isinstance(program, Entity):
        members = f"{_iri(program.identifier)} ?relation ?tail ."
    else:
        members = f"{{ {members_query(program)} }} ?x ?relation ?tail ."
    return f"SELECT DISTINCT ?relation WHERE {{ {members} }}"


def _iri(name: str) -> str:
    return f"<{NAMESPACE}{name}>"


def _names() -> Iterator[str]:
    return (f"?v{number}" for number in count())


def _others(program: Program, name: str) -> str:
    topics = sorted(set(_topics(program)))
    return f"FILTER({name} NOT IN ({', '.join(map(_iri, topics))}))" if topics else ""


def _topics(program: Program) -> Iterator[str]:
    match program:
        case Entity(identifier):
            yield identifier
        case Neighbors(source) | Extreme(source) | Number(source):
            yield from _topics(source)
        case Both(first, second):
            yield from _topics(first)
            yield from _topics(second)


def _where(program: Program, name: str, names: Iterator[str]) -> str:
    """Return graph patterns that bind `name` to the members.

    Intermediate steps are made distinct first: there are many paths but few members.
    """
    match program:
        case Neighbors(Entity(identifier), relation):
            return f"{_iri(identifier)} {_iri(relation)} {name} ."
        case Neighbors(source, relation):
            inner = next(names)
            return f"{_distinct(source, inner, names)} {inner} {_iri(relation)} {name} ."
        case Both(first, second):
            return f"{_distinct(first, name, names)} {_distinct(second, name, names)}"
        case Extreme(source, attribute, largest):
            value, other = next(names), next(names)
            order = f"DESC({value})" if largest else value
            best = (
                f"{{ SELECT {value} WHERE {{ {_distinct(source, other, names)} "
                f"{other} {_iri(attribute)} {value} . "
                f"{_others(program, other)} }} ORDER BY {order} LIMIT 1 }}"
            )
            return f"{_distinct(source, name, names)} {name} {_iri(attribute)} {value} . {best}"
        case Entity() | Number():
            raise ValueError(f"{program} is not a set of entities")


def _distinct(program: Program, name: str, names: Iterator[str]) -> str:
    return f"{{ SELECT DISTINCT {name} WHERE {{ {_where(program, name, names)} }} }}"
