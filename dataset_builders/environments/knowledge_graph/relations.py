"""Names of relations, and their wording in questions."""

from __future__ import annotations

import re
from functools import cache

DEGREE = "degree."
"""Prefix of attributes that count the edges of a relation."""

_JOINT = ".."
_PLURAL = re.compile(r"_s\b")
# Properties whose names are not nouns.
_NOUNS = {
    "adjoins": "neighboring place",
    "contains": "place within it",
    "costume_design_by": "costume designer",
    "countries_spoken_in": "country where it is spoken",
    "countries_within": "country within it",
    "edited_by": "editor",
    "executive_produced_by": "executive producer",
    "exported_to": "export destination",
    "film_art_direction_by": "art director",
    "film_production_design_by": "production designer",
    "honored_for": "honored work",
    "influenced_by": "influence",
    "languages_spoken": "spoken language",
    "nominated_for": "nominated work",
    "organizations_founded": "founded organization",
    "partially_contains": "place partly within it",
    "produced_by": "producer",
    "registered_with": "registering body",
    "story_by": "author of the story",
    "symptom_of": "disease with this symptom",
    "written_by": "writer",
}


def relation_name(path: str) -> str:
    """Return the dotted name of a relation.

    Args:
        path: As the slice has it: `/film/film/genre`, or `/people/person/spouse_s./people/
            marriage/spouse` where two Freebase relations were joined over a node that has
            no name of its own.

    Returns:
        `film.film.genre`, or `people.person.spouse_s..people.marriage.spouse`.
    """
    return _JOINT.join(part.strip("/").replace("/", ".") for part in path.split("./"))


def head_type(relation: str) -> str:
    """Return the type that a relation is a property of, such as `film.film`."""
    first = relation.removeprefix(DEGREE).split(_JOINT)[0]
    return first.rpartition(".")[0]


def guessed_type(relation: str) -> str:
    """Return a type named after the relation, if the graph does not give its tails' type."""
    last = relation.split(_JOINT)[-1].split(".")
    return f"{last[0]}.{_PLURAL.sub('', last[-1])}"


@cache
def phrase(relation: str) -> str:
    """Return a relation's property in words, such as "place of birth".

    A joint relation is worded by its end and, where that says something new, its start, such
    as "award (under award nominations)".
    """
    parts = relation.removeprefix(DEGREE).split(_JOINT)
    first, last = _words(parts[0]), _words(parts[-1])
    if first == last or first.rstrip("s") == last.rstrip("s"):
        return last
    return f"{last} (under {first})"


def type_words(relation: str) -> str:
    """Return the type that a relation is a property of in words, such as "film"."""
    return _words(head_type(relation))


def _words(name: str) -> str:
    last = name.rpartition(".")[2]
    return _NOUNS.get(last) or _PLURAL.sub("", last).replace("_", " ").strip()
