"""Variables of a chat template hold for every rendering of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.template_variables import set_template_variables

TEMPLATE = (
    "\n{%- macro tail() -%}{{ '' if enable_thinking else '<think></think>' }}{%- endmacro -%}"
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{{ tail() }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}off{%- endif -%}"
    "{{ words }}{%- endif -%}"
)
ASKED = [Message("user", "q")]


def prompt(tokenizer: Any) -> str:
    return ChatRenderer(tokenizer).prompt(ASKED)


def test_the_template_sees_them(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(TEMPLATE)
    plain = prompt(tokenizer)
    set_template_variables(tokenizer, {})
    assert prompt(tokenizer) == plain
    set_template_variables(tokenizer, {"enable_thinking": False, "words": 'a %} "b" é'})
    assert prompt(tokenizer) == plain + 'offa %} "b" é'
    # As any other program that renders it does, without being told.
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == prompt(tokenizer)


def test_later_ones_replace_earlier_ones(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(TEMPLATE)
    set_template_variables(tokenizer, {"enable_thinking": False})
    first = tokenizer.chat_template
    set_template_variables(tokenizer, {"enable_thinking": False})
    assert tokenizer.chat_template == first
    set_template_variables(tokenizer, {"enable_thinking": True, "words": [1, None, {"a": "b"}]})
    assert prompt(tokenizer).endswith("assistant\n[1, None, {'a': 'b'}]")
    assert "<think>" not in prompt(tokenizer)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"messages": []}, "found 'messages', expected a variable"),
        ({"a b": 1}, "found 'a b', expected a variable"),
        ({"x = 1 %}{{": 1}, "expected a variable"),
        ({"a": object()}, "a: found object, expected a JSON value"),
    ],
)
def test_what_cannot_be_a_variable_is_refused(
    make_tokenizer: Callable[..., Any], variables: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"chat_template_kwargs: .*{message}"):
        set_template_variables(make_tokenizer(TEMPLATE), variables)
