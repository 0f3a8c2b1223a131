"""Rename and reorder the tools of a conversation with native tool calls."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import yaml

from dataset_builders.conversation import Conversation, Message
from dataset_builders.tools import TOOL_NAME, parse_tools, tool_names

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_COMPOUND = re.compile(r"[_-]|[a-z][A-Z]|\d")

_STYLES: tuple[Callable[[list[str]], str], ...] = (
    "_".join,
    "-".join,
    lambda words: words[0] + "".join(word.capitalize() for word in words[1:]),
    lambda words: "".join(word.capitalize() for word in words),
)


@cache
def _names() -> Mapping[str, Any]:
    place = resources.files("dataset_builders.variation").joinpath("names.yaml")
    content: dict[str, Any] = yaml.safe_load(place.read_text("utf-8"))
    return content


@cache
def _synonyms() -> Mapping[str, Sequence[str]]:
    return {word: [w for w in verbs if w != word] for verbs in _names()["verbs"] for word in verbs}


def new_names(names: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Choose another name for each tool, in one style for all of them.

    Args:
        names: Different names.
        rng: Source of the choices.

    Returns:
        New names by old ones: different from each other and from all old ones, and such as
        endpoints accept.
    """
    style, taken, chosen = rng.choice(_STYLES), set(names), {}
    for name in names:
        words = [word.lower() for word in _WORD.findall(name)] or ["tool"]
        other = _other_words(words, rng)
        made, number = style(other), 1
        while made in taken or not TOOL_NAME.fullmatch(made):
            number += 1
            made = style([*other, str(number)])[-64:].lstrip("_-")
        taken.add(made)
        chosen[name] = made
    return chosen


def _other_words(words: list[str], rng: random.Random) -> list[str]:
    synonyms = _synonyms()
    known = [n for n, word in enumerate(words) if word in synonyms]
    if not known:
        return [rng.choice(_names()["prefixes"]), *words]
    place = known[0]
    return [*words[:place], rng.choice(synonyms[words[place]]), *words[place + 1 :]]


def with_tool_names(conversation: Conversation, rng: random.Random) -> Conversation:
    """Rename the tools in schemas, calls, results and text; arguments are left as they are."""
    names = new_names(list(dict.fromkeys(tool_names(conversation.tools))), rng)
    mention = _mentions(names)

    def text(content: str) -> str:
        return mention.sub(lambda found: names[found[0]], content)

    schemas = [_renamed_schema(each, names, text) for each in json.loads(conversation.tools)]
    messages = (_renamed(message, names, text) for message in conversation.messages)
    return replace(conversation, messages=tuple(messages), tools=parse_tools(schemas))


def _mentions(names: Mapping[str, str]) -> re.Pattern[str]:
    """Return a pattern of the names in text: a plain word only where it is marked as code."""
    forms = []
    for name in sorted(names, key=len, reverse=True):
        word = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        marked = rf"(?<=[`\"']){re.escape(name)}(?=[`\"'(])|{word}(?=\()"
        forms.append(word if _COMPOUND.search(name) else marked)
    return re.compile("|".join(forms))


def _renamed_schema(
    schema: dict[str, Any], names: Mapping[str, str], text: Callable[[str], str]
) -> dict[str, Any]:
    function = schema.get("function", schema)
    changed = {**function, "name": names[function["name"]]}
    if isinstance(function.get("description"), str):
        changed["description"] = text(function["description"])
    return {**schema, "function": changed} if "function" in schema else changed


def _renamed(message: Message, names: Mapping[str, str], text: Callable[[str], str]) -> Message:
    return replace(
        message,
        content=text(message.content),
        reasoning=None if message.reasoning is None else text(message.reasoning),
        name=names.get(message.name, message.name),
        tool_calls=tuple(
            replace(call, name=names.get(call.name, call.name)) for call in message.tool_calls
        ),
    )


def with_tool_order(conversation: Conversation, rng: random.Random) -> Conversation:
    """Shuffle the list of tools."""
    schemas = json.loads(conversation.tools)
    return replace(conversation, tools=parse_tools(rng.sample(schemas, len(schemas))))
