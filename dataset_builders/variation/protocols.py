"""Known instructions of agent tasks: other wordings of them, and other names of their actions."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.settings import settings


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"found {pattern!r}, expected a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


@settings
class ActionName:
    """An action's name in a text protocol, and its alternative names."""

    pattern: Pattern
    others: tuple[str, ...] = Field(min_length=1)


@settings
class Protocol:
    """An instruction that is recognised by its text; see protocols.yaml."""

    instruction: tuple[Pattern, ...]
    wordings: tuple[str, ...] = ()
    names: dict[str, ActionName] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _different_names(self) -> Protocol:
        others = [name for each in self.names.values() for name in each.others]
        if repeated := sorted({name for name in others if others.count(name) > 1}):
            raise ValueError(f"names: found {repeated[0]!r} twice in others, expected it once")
        return self

    def find(self, text: str) -> re.Match[str] | None:
        """Match the instruction at the start of a text."""
        found = (re.compile(each, re.DOTALL).match(text) for each in self.instruction)
        return next(filter(None, found), None)


Protocols = Mapping[str, Sequence[Protocol]]
"""By task, such as "db"."""

_PROTOCOLS = TypeAdapter(dict[str, tuple[Protocol, ...]])


def load_protocols(file: str | None = None) -> Protocols:
    """Load the protocols of this package and, before them, those of a user's file.

    Raises:
        SourceNotFoundError: There is no such file.
        ConfigError: It has another form.
    """
    shipped = _shipped()
    if file is None:
        return shipped
    path = Path(file).expanduser()
    try:
        own = _parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise SourceNotFoundError(f"{path}: {error.strerror}: expected protocols") from error
    return {task: (*own.get(task, ()), *shipped.get(task, ())) for task in {**shipped, **own}}


def protocols_digest(file: str | None) -> str:
    """Return the SHA-256 of a user's file, in hexadecimal; "" without one.

    Raises:
        SourceNotFoundError, ConfigError: See `load_protocols`.
    """
    if file is None:
        return ""
    load_protocols(file)
    return hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()


@cache
def _shipped() -> Protocols:
    place = resources.files("dataset_builders.variation").joinpath("protocols.yaml")
    return _parse(place.read_text("utf-8"), "protocols.yaml")


def _parse(text: str, where: str) -> Protocols:
    try:
        return _PROTOCOLS.validate_python(yaml.safe_load(text) or {})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {place}: {first['msg']}") from None
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{where}: expected protocols by task: {error}") from None


def protocol_of(conversation: Conversation, protocols: Protocols) -> Protocol | None:
    """Return the protocol whose instruction begins the conversation; None if it is not known."""
    text = conversation.messages[0].content
    known = protocols.get(conversation.task, ())
    return next((each for each in known if each.find(text)), None)


def reworded(conversation: Conversation, protocol: Protocol, rng: random.Random) -> Conversation:
    """Replace the instruction by another wording; unchanged if the protocol has none."""
    first, *rest = conversation.messages
    found = protocol.find(first.content)
    if found is None or not protocol.wordings:
        return conversation
    text = rng.choice(protocol.wordings)
    for name, value in found.groupdict().items():
        text = text.replace("{" + name + "}", value or "")
    text = text[:1].upper() + text[1:]
    first = replace(first, content=text + first.content[found.end() :])
    return replace(conversation, messages=(first, *rest))


def with_action_names(
    conversation: Conversation, protocol: Protocol, rng: random.Random
) -> Conversation:
    """Rename a text protocol's actions in the opening and in the assistant's turns.

    Observations are left as they are: what they hold is data.
    """
    names = protocol.names.values()
    chosen = [(re.compile(each.pattern), rng.choice(each.others)) for each in names]

    def renamed(message: Message) -> Message:
        content = message.content
        for pattern, name in chosen:
            content = pattern.sub(name.replace("\\", r"\\"), content)
        return replace(message, content=content)

    trained = [n for n, message in enumerate(conversation.messages) if message.trained]
    opening = trained[0] if trained else len(conversation.messages)
    messages: Any = (
        renamed(message) if number < opening or message.role == "assistant" else message
        for number, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=tuple(messages))
