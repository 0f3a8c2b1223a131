"""Prompt templates of environments: built in, or read from the user's AgentInstruct copy.

The published prompts are data. They are read from the rows that a model is trained on, so that the
model is prompted with the same text; the package ships its own.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from dataset_builders.conversation import ROLES, Message, Role
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.sources.loading import SourceSpec, load_source

OWN = "own"
PUBLISHED = "published"

Pieces = Callable[[Sequence[Sequence[Message]]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt template: turns before the first observation, and the text around observations.

    Attributes:
        name: "own" or "published".
        opening: Instruction, demonstrations and acknowledgement; none of them is trained on.
        pieces: Texts by name with `{field}` placeholders; `first` and `feedback`
            format the first and the later observations.
        suffix: Text appended to the system message or, without one, to the first user message.
    """

    name: str
    opening: tuple[Message, ...]
    pieces: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""

    def fill(self, piece: str, **values: str) -> str:
        """Fill a piece with its values; an absent piece is the observation alone."""
        text = self.pieces.get(piece, "{observation}")
        # Not str.format: values and published texts may contain braces.
        for name, value in values.items():
            before, slot, after = text.partition("{" + name + "}")
            text = before + value + after if slot else text
        return text

    @property
    def label(self) -> str:
        """Name and digest, such as "own:1f0c9a3e", for the record of a score."""
        turns = [[message.role, message.content] for message in self.opening]
        parts: list[Any] = [turns, sorted(self.pieces.items())]
        parts += [self.suffix] if self.suffix else []  # Labels without one stay as they were.
        content = json.dumps(parts, ensure_ascii=False)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.name}:{digest[:8]}"

    def extended(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages that begin a dialogue, with the suffix where there is one."""
        return with_suffix(messages, self.suffix) if self.suffix else list(messages)


def with_suffix(messages: Sequence[Message], text: str) -> list[Message]:
    """Append a paragraph to a dialogue's prompt: its system message, or its first user message.

    Training data and evaluation use this function, so that both have the same prompt.

    Raises:
        DataError: There is neither a system nor a user message.
    """
    roles = [message.role for message in messages]
    role = next((role for role in ("system", "user") if role in roles), None)
    if role is None:
        raise DataError("messages: found neither a system nor a user message for the prompt suffix")
    place = roles.index(role)
    content = "\n\n".join(filter(None, (messages[place].content, text)))
    changed = replace(messages[place], content=content)
    return [*messages[:place], changed, *messages[place + 1 :]]


def own_prompt(module: str, template: Mapping[str, Any] | None = None) -> Prompt:
    """Load the built-in prompt template.

    Args:
        module: The dialogue's module; `prompt.yaml` is read beside it.
        template: The template in Python instead, with the keys of `prompt.yaml`.

    Returns:
        The template; if there is none, one without opening whose observations stand alone.

    Raises:
        ConfigError: It has another form.
    """
    where = f"{module}: prompt_template"
    if template is None:
        package = module.rpartition(".")[0]
        # A module outside of a package may be any file.
        beside = Path(str(getattr(sys.modules.get(module), "__file__", ""))).parent
        path = (resources.files(package) if package else beside).joinpath("prompt.yaml")
        if not path.is_file():
            return Prompt(OWN, ())
        where = str(path)
        template = yaml.safe_load(path.read_text("utf-8"))
    try:
        pieces = dict(template)
        opening = tuple(
            Message(_role(turn["role"]), _text(turn["content"]))
            for turn in pieces.pop("opening", ())
        )
        return Prompt(OWN, opening, {name: _text(text) for name, text in pieces.items()})
    except (TypeError, ValueError, KeyError) as error:
        expected = "a list `opening` of {role, content}, and texts by name such as first, feedback"
        raise ConfigError(f"{where}: expected {expected}: {error}") from error


def _role(value: object) -> Role:
    if value not in ROLES:
        raise TypeError(f"role: found {value!r:.60}, expected one of {', '.join(ROLES)}")
    return cast(Role, value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"found {value!r:.60}, expected text")
    return value


def published_prompt(task: str, agentinstruct: str, pieces: Pieces) -> Prompt:
    """Read the prompt template from a user's AgentInstruct copy.

    The opening is the most common start of a row, up to the last assistant turn that is not trained
    on (`loss` false): instruction, acknowledgement and demonstration.

    Args:
        task: AgentInstruct's name of the task, such as "db".
        agentinstruct: File, folder or hub id of the copy.
        pieces: Extracts the text around observations from the turns that follow.

    Raises:
        SourceNotFoundError: There is no such copy.
        DataError: It holds no rows of the task.
    """
    loaded = load_source(SourceSpec(agentinstruct, "agentinstruct"))
    rows = [row.messages for row in loaded.conversations if row.task == task]
    if not rows:
        raise DataError(f"{agentinstruct}: found no row of task {task!r}, expected some")
    openings = Counter(_opening(row) for row in rows)
    opening = openings.most_common(1)[0][0]
    followers = [row[len(opening) :] for row in rows if row[: len(opening)] == opening]
    return Prompt(PUBLISHED, opening, pieces(followers))


def _opening(row: Sequence[Message]) -> tuple[Message, ...]:
    last = max(
        (
            index
            for index, message in enumerate(row)
            if message.role == "assistant" and not message.trained
        ),
        default=-1,
    )
    return tuple(row[: last + 1])


def check_prompt(prompt: str, agentinstruct: str | None) -> None:
    """Check a choice of prompt template.

    Raises:
        ConfigError: It is unknown, or "published" without a copy.
    """
    if prompt not in (OWN, PUBLISHED):
        raise ConfigError(f"prompt: found {prompt!r}, expected {OWN!r} or {PUBLISHED!r}")
    if prompt == PUBLISHED and not agentinstruct:
        raise ConfigError("prompt: published: name your AgentInstruct copy (agentinstruct)")
