"""Command-line options made from the fields of settings, so that each is defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agenttuning_plugin.cli.request_options import json_fields
from dataset_builders.settings import bounds_of, fields_of

_F = TypeVar("_F", bound=Callable[..., Any])
_BOUNDS = {"ge": "min", "le": "max"}


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """The options of a command that are the fields of one class of settings.

    Attributes:
        model: Class of the settings; descriptions of fields are the options' help.
        only: Fields that are options; by default all.
        skip: Fields that the command sets itself.
        names: Parameter of the command by field, where they have different names.
        defaults: Default by field, where it is another one on the command line.
        panel: Heading in the command's help.
    """

    model: Any
    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    panel: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """Parameter of the command by field."""
        return {
            name: self.names.get(name, name)
            for name in self.only or fields_of(self.model)
            if name not in self.skip
        }

    def signature(self) -> Iterator[inspect.Parameter]:
        """Yield the parameters of the command, as typer reads them."""
        for name, parameter in self.parameters.items():
            info = fields_of(self.model)[name]
            kind, is_many = _kind_of(info.annotation)
            default = None if is_many else info.default
            default = self.defaults.get(name, default)
            yield inspect.Parameter(
                parameter,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if default is PydanticUndefined else default,
                annotation=Annotated[
                    kind | None if default is None else kind, self._option(parameter, info)
                ],
            )

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the fields, out of those of the command's parameters.

        Raises:
            ConfigError: A value of a mapping is not name=JSON.
        """
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            info, value = fields_of(self.model)[name], given[parameter]
            if get_origin(_bare(info.annotation)) in (dict, Mapping):
                value = json_fields(value, _flag(parameter))
            elif _kind_of(info.annotation)[1]:
                value = tuple(value or ())
            found[name] = value
        return found

    def _option(self, parameter: str, info: FieldInfo) -> Any:
        bounds = {_BOUNDS[k]: value for k, value in bounds_of(info).items() if k in _BOUNDS}
        return typer.Option(
            _flag(parameter), help=info.description, rich_help_panel=self.panel, **bounds
        )


def with_options(*groups: OptionGroup) -> Callable[[_F], _F]:
    """Decorator: add options to a command, which takes them as keyword arguments."""

    def decorate(command: _F) -> _F:
        own, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
        named = [
            each.replace(kind=each.KEYWORD_ONLY, annotation=hints[name])
            for name, each in own.parameters.items()
            if each.kind is not each.VAR_KEYWORD
        ]
        parameters = [*named, *(each for group in groups for each in group.signature())]
        setattr(command, "__signature__", own.replace(parameters=parameters))  # noqa: B010
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _flag(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")


def _bare(annotation: Any) -> Any:
    """Return an annotation without None."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    return parts[0] if NoneType in get_args(annotation) and len(parts) == 1 else annotation


def _kind_of(annotation: Any) -> tuple[Any, bool]:
    """Return the type of an option for a field, and whether it is repeatable."""
    bare = _bare(annotation)
    origin = get_origin(bare)
    if origin is Literal:
        return str, False
    if origin is not None and issubclass(origin, Sequence | Mapping):
        return list[str], True
    return (bare if bare in (bool, int, float, str, Path) else str), False
