"""AgentBench's seven tools, and how a line of text calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dataset_builders.environments.knowledge_graph.graph import INTEGER, Graph
from dataset_builders.environments.knowledge_graph.ontology import Ontology
from dataset_builders.environments.knowledge_graph.variables import (
    Both,
    Entity,
    Extreme,
    Neighbors,
    Number,
    Program,
    Variable,
    members_query,
)

BAD_ARGUMENTS = "bad_arguments"
TYPES_DIFFER = "types_differ"
SYNTAX = "syntax"
NO_CALL = "no_call"

# Matched only from the start of a word: otherwise a long one takes quadratic time.
_CALLED = re.compile(r"(?<!\w)(\w+)\(")
_IDENTIFIER = re.compile(r"[mf]\.\w+")
_VARIABLE = re.compile(r"#(\d{1,4})")
_COMMA = re.compile(r"\s*,\s*")


class _CannotExecute(Exception):
    """The call is invalid; the message is shown to the model."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of a line of calls.

    Attributes:
        text: The result; "" if nothing was executed.
        problem: "" or why nothing was executed: "bad_arguments", "types_differ",
            "syntax" or "no_call".
        call: The call that failed, or its function's name after "syntax".
    """

    text: str
    problem: str = ""
    call: str = ""


class Toolbox:
    """The tools of one episode, with its variables.

    `get_neighbors` takes only relations that `get_relations` listed for the same set, and
    `argmax` and `argmin` only attributes that `get_attributes` listed. AgentBench keeps
    those lists for the lifetime of its process; here each episode has its own.

    Args:
        graph: The triples.
        ontology: The relations.
        entities: Names of nodes, as given in the question.
    """

    def __init__(self, graph: Graph, ontology: Ontology, entities: Mapping[str, str]) -> None:
        self._graph, self._ontology, self._entities = graph, ontology, entities
        self.variables: list[Variable] = []
        self._relations: dict[Program, dict[str, str]] = {}
        self._attributes: dict[Program, tuple[str, ...]] = {}
        self._tools: dict[str, Callable[..., str]] = {
            "get_relations": self._get_relations,
            "get_neighbors": self._get_neighbors,
            "intersection": self._intersection,
            "get_attributes": self._get_attributes,
            "argmax": lambda *given: self._extreme(True, *given),
            "argmin": lambda *given: self._extreme(False, *given),
            "count": self._count,
        }

    def members(self, variable: Variable) -> frozenset[str]:
        """Return the members of a variable, or its number as text.

        Raises:
            EnvironmentFailureError: The graph failed.
        """
        return frozenset(row[0] for row in self._graph.rows(members_query(variable.program)))

    def call(self, line: str) -> Reply:
        """Execute the first executable call of a line.

        Arguments are what stands between the first bracket and the next closing one, cut
        at commas; a name that holds either cannot be given. If all calls fail, the last failure is
        returned.

        Raises:
            EnvironmentFailureError: The graph failed.
        """
        reply = Reply("", NO_CALL)
        failed: dict[str, Reply] = {}  # All calls of one name are parsed as its first one.
        for name in _CALLED.findall(line):
            if name not in failed:
                reply = self._try(name, line)
                if not reply.problem:
                    return reply
                failed[name] = reply
            reply = failed[name]
        return reply

    def _try(self, name: str, line: str) -> Reply:
        given = _first_arguments(name, line)
        if name not in self._tools or not given:
            return Reply("", SYNTAX, name)
        words = _COMMA.split(given)
        try:
            return Reply(self._tools[name](*map(self._value, words)))
        except _CannotExecute:
            problem = TYPES_DIFFER if name == "intersection" else BAD_ARGUMENTS
            return Reply("", problem, f"{name}({', '.join(words)})")
        except RecursionError:
            return Reply("", BAD_ARGUMENTS, f"{name}({', '.join(words)})")

    def find(self, identifier: str) -> Variable | None:
        """Return the variable with a number such as "3"; None if there is none."""
        found = _VARIABLE.fullmatch("#" + identifier)
        index = int(found.group(1)) if found else len(self.variables)
        return self.variables[index] if index < len(self.variables) else None

    def _value(self, word: str) -> Variable | str:
        word = word.replace("variable ", "").replace("Variable ", "")
        if not word.startswith("#"):
            return self._entities.get(word, word)
        variable = self.find(word[1:])
        if variable is None:
            raise _CannotExecute
        return variable

    def _add(self, kind: str, program: Program) -> str:
        self.variables.append(Variable(kind, program))
        nature = "which is a number" if kind == INTEGER else f"which are instances of {kind}"
        return f"variable #{len(self.variables) - 1}, {nature}"

    def _get_relations(self, *given: Any) -> str:
        (source,) = _exactly(1, given)
        program = _program(source)
        self._relations[program] = self._ontology.relations(self._graph, program)
        return f"[{', '.join(self._relations[program])}]"

    def _get_neighbors(self, *given: Any) -> str:
        source, relation = _exactly(2, given)
        program = _program(source)
        listed = self._relations.get(program, {})
        if not isinstance(relation, str) or not listed.get(relation):
            raise _CannotExecute
        return self._add(listed[relation], Neighbors(program, relation))

    def _intersection(self, *given: Any) -> str:
        first, second = (_entities(each) for each in _exactly(2, given))
        if first.type != second.type:
            raise _CannotExecute
        return self._add(first.type, Both(first.program, second.program))

    def _get_attributes(self, *given: Any) -> str:
        (variable,) = (_entities(each) for each in _exactly(1, given))
        names = self._ontology.attributes(self._graph, variable.program)
        self._attributes[variable.program] = names
        return f"[{', '.join(names)}]"

    def _extreme(self, largest: bool, *given: Any) -> str:
        source, attribute = _exactly(2, given)
        variable = _entities(source)
        if attribute not in self._attributes.get(variable.program, ()):
            raise _CannotExecute
        return self._add(variable.type, Extreme(variable.program, attribute, largest))

    def _count(self, *given: Any) -> str:
        (variable,) = (_entities(each) for each in _exactly(1, given))
        return self._add(INTEGER, Number(variable.program))


def _first_arguments(name: str, line: str) -> str:
    """Return the text between the first bracket of a call and the next one; "" if none."""
    start = line.index(f"{name}(") + len(name) + 1
    end = line.find(")", start + 1)
    return line[start:end] if end > 0 else ""


def _exactly(number: int, given: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(given) != number:
        raise _CannotExecute
    return given


def _entities(value: Any) -> Variable:
    """Return a variable that holds entities; numbers cannot be followed."""
    if not isinstance(value, Variable) or isinstance(value.program, Number):
        raise _CannotExecute
    return value


def _program(value: Any) -> Program:
    if isinstance(value, str):
        if not _IDENTIFIER.fullmatch(value):
            raise _CannotExecute
        return Entity(value)
    return _entities(value).program
