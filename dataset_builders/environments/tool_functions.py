"""Methods as tools: JSON schemas from type hints and Google-style docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any, TypeVar, get_type_hints

from dataset_builders.errors import ConfigError

_MARK = "__agenttuning_tool__"
_F = TypeVar("_F", bound=Callable[..., Any])
_SECTION = re.compile(r"^(?:Args|Arguments|Returns|Raises|Yields|Example|Examples):\s*$", re.M)
_ARGUMENT = re.compile(r"^[ \t]+(\w+)(?: ?\([^)]*\))?:[ \t]*(.*)$")


def tool(method: _F) -> _F:
    """Decorator: the method is a tool that the model may call, by its name.

    Its parameters need type hints of JSON values (`str`, `int`, `float`, `bool`, `list`, `dict`,
    `Literal`, `X | None`), and its docstring says what it does; `Args:` describes the parameters.
    It returns text.
    """
    setattr(method, _MARK, True)
    return method


def tools_of(owner: type) -> list[Callable[..., Any]]:
    """Return the methods of a class that are tools, those of its bases first."""
    found: dict[str, Callable[..., Any]] = {}
    for each in reversed(owner.__mro__):
        found |= {name: value for name, value in vars(each).items() if hasattr(value, _MARK)}
    return list(found.values())


@cache
def function_schema(method: Callable[..., Any]) -> dict[str, Any]:
    """Return a method's schema in the OpenAI format; the same object each time, not to be changed.

    Cached, because an environment is asked for its tools at every call.

    Raises:
        ConfigError: It has no docstring, a parameter without a type hint, or one that JSON has not.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    where = f"tool {method.__qualname__}"
    text = inspect.getdoc(method)
    if not text:
        raise ConfigError(f"{where}: found no docstring, expected one that says what it does")
    signature = inspect.signature(MethodType(method, object()))
    for name, parameter in signature.parameters.items():
        if parameter.annotation is inspect.Parameter.empty:
            raise ConfigError(f"{where}: parameter {name!r}: found no type hint, expected one")
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            kind = parameter.kind.description
            raise ConfigError(f"{where}: parameter {name!r}: found a {kind} one, expected a name")
    try:
        hints = get_type_hints(method, include_extras=True)
        function = _function(signature, {name: hints[name] for name in signature.parameters})
        parameters = _without_titles(TypeAdapter(function).json_schema())
    except (PydanticUserError, NameError, TypeError) as error:
        line = str(error).split("\n", 1)[0]
        raise ConfigError(f"{where}: no JSON Schema: {line}") from error
    parts = _SECTION.split(text)
    described = _arguments(text)
    for name, schema in parameters.get("properties", {}).items():
        if name in described:
            schema.setdefault("description", described[name])
    description = " ".join(parts[0].split())
    made = {
        "name": method.__name__, "description": description, "parameters": parameters,
    }  # fmt: skip
    return {"type": "function", "function": made}


def _function(signature: inspect.Signature, hints: dict[str, Any]) -> Callable[..., Any]:
    """Return a function of a signature whose hints are not text, for pydantic."""

    def function(*args: Any, **kwargs: Any) -> None:
        del args, kwargs

    function.__annotations__ = hints
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _arguments(text: str) -> dict[str, str]:
    """Return the descriptions of a docstring's section `Args:`, by parameter."""
    section = re.search(r"^(?:Args|Arguments):\s*\n((?:[ \t]+.*\n?|\n)*)", text, re.M)
    found: dict[str, str] = {}
    indent, name = None, ""
    for line in section[1].splitlines() if section else ():
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        match = _ARGUMENT.match(line) if depth == indent else None
        if match:
            name = match[1]
            found[name] = match[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _without_titles(schema: Any) -> Any:
    """Return a JSON Schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_titles(each) for name, each in value.items()}
        if key in ("properties", "$defs") and isinstance(value, dict)
        else _without_titles(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
