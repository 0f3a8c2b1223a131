"""Suggests the known key that a misspelt one most likely means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

_RENAMED = {"every_dear": "every_generative"}


def suggestion(key: str, known: Iterable[str], cutoff: float = 0.75) -> str:
    """The known key that is nearest to a misspelt one, as the end of a sentence.

    Args:
        key: The key as found.
        known: Keys that are valid there.
        cutoff: Least similarity, of `difflib.SequenceMatcher`.

    Returns:
        `, renamed to ...`, `, did you mean ...?`, or nothing if no key is near.
    """
    if _RENAMED.get(key) in (known := list(known)):
        return f", renamed to {_RENAMED[key]}"
    found = difflib.get_close_matches(key, known, 1, cutoff)
    return f", did you mean {found[0]}?" if found else ""


def keys_beside(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys that are valid where an error was found.

    Args:
        model: Model of the whole section.
        place: The `loc` of a pydantic error, the key itself last. It names list indices and, in
            unions, the member that was tried.
    """
    models = [model]
    for part in place[:-1]:
        inner = [
            found
            for each in models
            if part in each.model_fields
            for found in models_of(each.model_fields[str(part)].annotation)
        ]
        if inner:
            models = inner
        elif isinstance(part, str):
            models = [each for each in models if part in (each.__name__, _tag(each))]
    return [key for each in models for key in each.model_fields]


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a field may hold, within lists and unions too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_of(part)


def _tag(model: type[BaseModel]) -> str:
    """Value of `type` that tells a member of a union, or nothing."""
    field = model.model_fields.get("type")
    literal = field.annotation if field else None
    return str(get_args(literal)[0]) if get_origin(literal) is Literal else ""
