"""Settings shared by recipe, Python and command line: frozen, validated, unknown keys rejected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from dataset_builders.errors import ConfigError

_T = TypeVar("_T")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_LISTED = 12
_RENAMED = {"every_dear": "every_generative"}


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[_T]) -> type[_T]:
    """Class decorator: a frozen pydantic dataclass that rejects unknown keys and invalid values.

    As a field of a pydantic model it is validated there. Made in Python, a wrong value is a
    `ConfigError`, which the command line shows in one line.
    """
    return _closed(cls, ConfigDict(extra="forbid"))


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def options(cls: type[_T]) -> type[_T]:
    """Class decorator: `settings` whose values are not converted, such as a number out of text.

    For options by name, whose values are passed on unchanged.
    """
    return _closed(cls, ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True))


def _closed(cls: type[_T], config: ConfigDict) -> type[_T]:
    made: Any = dataclass(frozen=True, config=config)(cls)
    validate = made.__init__

    @wraps(validate)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            validate(self, *args, **kwargs)
        except ValidationError as error:
            raise ConfigError(problems_of(made, error)) from None

    made.__init__ = init
    return cast(type[_T], made)


def read_settings(model: type[_T], given: Mapping[str, Any], place: str) -> _T:
    """Build settings from a mapping, such as a task's options.

    Args:
        model: A class of `settings` or `options`.
        given: Values by name.
        place: Name of the settings, for messages.

    Raises:
        ConfigError: A name is unknown or a value wrong; all of them, with the nearest name.
    """
    known = fields_of(model)
    if unknown := [name for name in given if name not in known]:
        near = suggestion(str(unknown[0]), known).replace(", ", "; ", 1)
        listed = ", ".join(known) or "none"
        raise ConfigError(f"{place}: option {unknown[0]!r} is unknown; known: {listed}{near}")
    try:
        return model(**given)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def to_json(value: Any) -> str:
    """Settings as JSON text, for another process."""
    return TypeAdapter(type(value)).dump_json(value).decode()


def from_json(model: type[_T], text: str) -> _T:
    """Settings out of `to_json`."""
    return TypeAdapter(model).validate_json(text)


def problems_of(model: Any, error: ValidationError, place: str = "") -> str:
    """Return all of pydantic's errors in one line; see `describe`."""
    return "; ".join(describe(model, item, place) for item in error.errors())


def describe(model: Any, item: Any, place: str = "") -> str:
    """Format one of pydantic's errors: location, what was found, what was expected.

    Args:
        model: Model that was validated.
        item: Of `ValidationError.errors()`.
        place: Where the model is.
    """
    first, *rest = item["loc"] or ("",)
    if isinstance(first, int):  # number of an argument
        first = list(fields_of(model))[first]
    where = ".".join(str(part) for part in (place, first, *rest) if part != "")
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] in _UNKNOWN:
        known = keys_beside(model, item["loc"])
        near = suggestion(str(item["loc"][-1]), known)
        listed = f", expected {', '.join(known) or 'none'}" if len(known) <= _LISTED else ""
        return f"{where}: unknown key{near or listed}"
    if item["type"] in {"value_error", "missing"}:
        return f"{where}: {message}" if where else message
    return f"{where}: found {short(item['input'])}, {message[:1].lower()}{message[1:]}"


def short(value: Any) -> str:
    """Format a value for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggestion(key: str, known: Iterable[str], cutoff: float = 0.75) -> str:
    """Return a suggestion of the known key nearest to a misspelt one, to end a sentence with.

    Args:
        key: The key as found.
        known: Keys that are valid there.
        cutoff: Minimum similarity, by `difflib.SequenceMatcher`.

    Returns:
        `, renamed to ...`, `, did you mean ...?`, or nothing if no key is near.
    """
    if _RENAMED.get(key) in (known := list(known)):
        return f", renamed to {_RENAMED[key]}"
    found = difflib.get_close_matches(key, known, 1, cutoff)
    return f", did you mean {found[0]}?" if found else ""


def fields_of(model: Any) -> dict[str, FieldInfo]:
    """Return the fields of a pydantic model or of a class of `settings`; else an empty mapping."""
    found: dict[str, FieldInfo] = getattr(model, "__pydantic_fields__", {})
    return found


def field_of(model: Any, name: str, **changes: Any) -> Any:
    """Return a field of the same meaning in another model: its default, bounds and description.

    Args:
        model: Model that defines the field.
        name: Name of the field there.
        changes: Arguments of pydantic's `Field` that differ.
    """
    info = fields_of(model)[name]
    kept: dict[str, Any] = {"description": info.description, **bounds_of(info)}
    if "default" not in changes:
        kind = "default_factory" if info.default_factory else "default"
        kept[kind] = getattr(info, kind)
    return Field(**{**kept, **changes})


def bounds_of(field: FieldInfo) -> dict[str, Any]:
    """Return the bounds of a field, by the names of pydantic's `Field`, such as `ge`."""
    return {
        name: value
        for each in field.metadata
        for name in ("ge", "gt", "le", "lt", "min_length")
        if (value := getattr(each, name, None)) is not None
    }


def keys_beside(model: Any, place: Sequence[str | int]) -> list[str]:
    """Return the valid keys at the location of an error.

    Args:
        model: Model of the whole.
        place: The `loc` of a pydantic error, the key itself last. It names list indices and, in
            unions, the member that was tried.
    """
    models = [model]
    for part in place[:-1]:
        inner = [
            found
            for each in models
            if part in fields_of(each)
            for found in models_of(fields_of(each)[str(part)].annotation)
        ]
        if inner:
            models = inner
        elif isinstance(part, str):
            models = [each for each in models if part in (each.__name__, _tag(each))]
    return [key for each in models for key in fields_of(each)]


def models_of(annotation: Any) -> Iterator[Any]:
    """Return the models that a field may hold, within lists and unions too."""
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_fields__"):
        yield annotation
    for part in get_args(annotation):
        yield from models_of(part)


def _tag(model: Any) -> str:
    """Return the value of `type` that identifies a member of a union, or ""."""
    field = fields_of(model).get("type")
    literal = field.annotation if field else None
    return str(get_args(literal)[0]) if get_origin(literal) is Literal else ""
