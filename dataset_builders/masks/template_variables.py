"""Set variables of a chat template, such as Qwen3's `enable_thinking`, for every rendering.

They are written into the template's text. So training rows, prompts of evaluations, cached rows
and the tokenizer that training saves, from which a server takes its template, agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from dataset_builders.errors import ConfigError

_BEGIN = "{#- chat_template_kwargs #}"
_SETTING = re.compile(re.escape(_BEGIN) + r"(?P<names>(?:\{%- set .*? %\})*)\n")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OWN = frozenset({"messages", "tools", "documents", "add_generation_prompt", "chat_template"})
"""Variables that every rendering sets anyway."""


def set_template_variables(tokenizer: Any, variables: Mapping[str, Any]) -> None:
    """Set variables in a tokenizer's chat template, replacing those set before.

    Args:
        tokenizer: A Hugging Face tokenizer; its `chat_template` is changed.
        variables: JSON values by name; none leaves the template as it is.

    Raises:
        ConfigError: A name cannot be a variable, or is one of the rendering's own; a value is
            not JSON; or the tokenizer has no chat template.
    """
    if not variables:
        return
    lines = [
        f"{{%- set {_checked(name)} = {_literal(name, v)} %}}" for name, v in variables.items()
    ]
    template = tokenizer.chat_template
    if not template:
        raise ConfigError("chat_template_kwargs: the tokenizer has no chat template to set them in")
    if isinstance(template, dict):
        tokenizer.chat_template = {key: _with(lines, text) for key, text in template.items()}
    else:
        tokenizer.chat_template = _with(lines, template)


def _with(lines: list[str], template: str) -> str:
    # The line break goes with the last tag (`trim_blocks`).
    return f"{_BEGIN}{''.join(lines)}\n{_SETTING.sub('', template, count=1)}"


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None or name in _OWN:
        raise ConfigError(
            f"chat_template_kwargs: found {name!r}, expected a variable of the chat template, "
            "such as enable_thinking"
        )
    return name


def _literal(name: str, value: Any) -> str:
    """Return a JSON value in Jinja syntax."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(_literal(name, each) for each in value)}]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key))}: {_literal(name, v)}" for key, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, bool | int | float | str):
        # No text may end the tag that it stands in.
        return json.dumps(value).replace("%", "\\u0025")
    found = type(value).__name__
    raise ConfigError(f"chat_template_kwargs: {name}: found {found}, expected a JSON value")
