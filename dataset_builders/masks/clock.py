"""Fixed date for chat templates that write today's date.

Llama 3.2's, Llama 4's, gpt-oss's and Mistral's templates call `strftime_now(format)`. With
the real date, rows built on different days would differ. A function cannot be passed to the
template: transformers 5.22.2 and later turn its arguments into plain data. So a Jinja macro of the
    same name is prepended to the template's text, which works with every version.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache, lru_cache
from itertools import product

CLOCK = datetime(2024, 7, 26)
"""The date of every rendering, so that rows do not depend on the day they are built: the one that
Llama 3.1's template hard-codes."""

_FUNCTION = "strftime_now"
_DIRECTIVES = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
_FLAGS = ("", "-", "_", "0", "^", "#")  # Extensions of glibc: `%-d` is the day without a zero.
_ESCAPED = "\ue000"  # Stands for `%%` while the directives are replaced.


def writes_date(template: object) -> bool:
    """Whether a chat template, or one of several by name, writes today's date."""
    return _FUNCTION in str(template)


def with_fixed_clock(template: str) -> str:
    """Make `strftime_now` in a template return `CLOCK`; other templates are unchanged.

    Args:
        template: Text of a chat template.
    """
    # The line break behind the macro goes with its end tag (`trim_blocks`), and the
    # template's own first line stays the start of a line (`lstrip_blocks`).
    return f"{_macro(template)}\n{template}" if _FUNCTION in template else template


@lru_cache(maxsize=64)
def _macro(template: str) -> str:
    # Only the directives that the template writes: each costs a step in every rendering.
    used = [pair for pair in _answers() if pair[0] in template]
    answers = json.dumps([["%%", _ESCAPED], *used, [_ESCAPED, "%"]])
    return (
        f"{{%- macro {_FUNCTION}(format) -%}}"
        "{%- set clock = namespace(text=format) -%}"
        f"{{%- for directive, answer in {answers} -%}}"
        "{%- set clock.text = clock.text.replace(directive, answer) -%}"
        "{%- endfor -%}"
        "{{- clock.text -}}"
        "{%- endmacro %}"
    )


@cache
def _answers() -> list[list[str]]:
    answers = []
    for flag, letter in product(_FLAGS, _DIRECTIVES):
        directive = f"%{flag}{letter}"
        try:
            answer = CLOCK.strftime(directive)
        except ValueError:  # Not known to this system's C library.
            continue
        if answer not in (directive, directive[1:]):
            answers.append([directive, answer])
    return answers
