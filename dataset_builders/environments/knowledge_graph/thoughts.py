"""Thoughts of the oracle before each gold call."""

from __future__ import annotations

import re

from dataset_builders.environments.knowledge_graph.relations import phrase

_CALL = re.compile(r"(\w+)\((.+)\)")
_NUMBER_WORDS = {"argmax": "largest", "argmin": "smallest"}


def thought_before(call: str, number: int) -> str:
    """Return a thought for a gold call.

    Args:
        call: Such as "get_neighbors(Denton, location.location.time_zones)".
        number: Its index among the calls, from 0.
    """
    found = _CALL.fullmatch(call)
    if found is None:
        raise ValueError(f"{call!r} is not a call")
    name = found.group(1)
    first, *rest = found.group(2).split(", ")
    match name:
        case "get_relations" if first.startswith("#"):
            return f"{first} is not the answer yet. I look at where its members lead."
        case "get_relations":
            begin = "I start from" if number == 0 else "I also need"
            return f"{begin} {first}, so I look at which relations it has."
        case "get_neighbors":
            return f"The relation {rest[0]} gives the {phrase(rest[0])} of {first}. I follow it."
        case "intersection":
            return f"What is asked for belongs to {first} as well as {rest[0]}: their intersection."
        case "count":
            return f"The question asks how many there are, so I count the members of {first}."
        case "get_attributes":
            return f"To compare the members of {first} I need their numerical attributes."
        case "argmax" | "argmin":
            return f"I want the member of {first} with the {_NUMBER_WORDS[name]} {rest[0]}."
        case _:
            return f"The next step is {name}."


def closing_thought(variable: int) -> str:
    """Return a thought for the final answer."""
    return f"#{variable} holds what the question asks for."
