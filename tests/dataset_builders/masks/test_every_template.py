"""Masks under every chat template at hand, over shapes of conversations that break masks.

What is refused and what cannot be exact is written down below, template by template, and
asserted both ways: an entry that no longer applies fails, too.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.chat_templates import ChatTemplate
from dataset_builders.masks.reasoning import AS_TEXT, REFUSED
from dataset_builders.masks.template_variables import set_template_variables
from tests.support.every_template import FEWEST, PARTS, Oracle, find_templates, speaking
from tests.support.template_outcomes import CALLS, NAMED, NEWER, UNENDED, expected
from tests.support.template_shapes import REWRITTEN, SHAPES, TOOLS

pytest.importorskip("transformers")


TEMPLATES = find_templates()


def outcome(tokenizer: Any, name: str) -> dict[str, str]:
    """What becomes of each shape under a template; the text is checked on the way."""
    tokenizer, ends = speaking(tokenizer, TEMPLATES[name], name in PARTS)
    if name in UNENDED:
        with pytest.raises(ConfigError, match="without a token that generation stops at"):
            ChatRenderer(tokenizer, ends)
        return dict.fromkeys(SHAPES | REWRITTEN, "unusable")
    renderer = ChatRenderer(tokenizer, ends)
    return {
        shape: outcome_of(tokenizer, renderer, shape, name in PARTS) for shape in SHAPES | REWRITTEN
    }


def outcome_of(tokenizer: Any, renderer: ChatRenderer, shape: str, parts: bool) -> str:
    """ "exact", "off prompt", or the reason of a refusal."""
    end = tokenizer.eos_token
    messages = tuple(
        replace(message, content=message.content.replace("END", end))
        for message in (SHAPES | REWRITTEN)[shape]
    )
    tools = TOOLS if any(message.tool_calls for message in messages) else ""
    try:
        rendered = renderer.render(Conversation.create(messages, tools=tools), certify=True)
    except MaskError as error:
        return error.reason
    assert rendered.certified
    form = ChatTemplate(tokenizer).reasoning_form
    oracle = Oracle(tokenizer, renderer.end_tokens, messages, parts, tools, form)
    oracle.check(rendered, shape in REWRITTEN)
    return "off prompt" if rendered.off_prompt else "exact"


@pytest.mark.parametrize("name", TEMPLATES)
def test_masks_are_exact_or_refused(small_tokenizer: Any, name: str) -> None:
    assert outcome(small_tokenizer, name) == expected(name)


def test_the_templates_are_there() -> None:
    for library, fewest in FEWEST.items():
        found = [name for name in TEMPLATES if name.startswith(f"{library}/")]
        if not found:
            pytest.skip(f"{library} is not installed")
        assert len(found) >= fewest
    assert TEMPLATES.keys() >= NAMED - NEWER


@pytest.mark.parametrize("shape", SHAPES | REWRITTEN)
def test_smollm2s_own(smollm2_tokenizer: Any, shape: str) -> None:
    found = outcome_of(smollm2_tokenizer, ChatRenderer(smollm2_tokenizer), shape, False)
    assert found == ("template" if shape in CALLS else "exact")


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("axolotl/qwen3", ("reasoning_content",)),
        # Newer versions of transformers take any of the names for any template.
        ("trl/gptoss", ("reasoning_content", "thinking")),
        ("axolotl/gemma4", ("reasoning_content",)),
        ("axolotl/command_a", (REFUSED,)),
        ("trl/deepseekv3", (AS_TEXT,)),
        ("axolotl/jamba", (AS_TEXT,)),
        ("llama-2", (AS_TEXT,)),
    ],
)
def test_reasoning_goes_where_the_template_reads_it(
    small_tokenizer: Any, name: str, forms: tuple[str, ...]
) -> None:
    if name not in TEMPLATES:
        pytest.skip(f"{name} is not installed")
    tokenizer, _ = speaking(small_tokenizer, TEMPLATES[name], name in PARTS)
    assert ChatTemplate(tokenizer).reasoning_form in forms


def test_reasoning_may_be_a_part_of_the_content(small_tokenizer: Any) -> None:
    # As Mistral's templates of 2025 read it.
    template = (
        "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
        "{%- if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'thinking' %}[THINK]{{ part.thinking[0].text }}[/THINK]"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = template
    messages = (Message("user", "q"), Message("assistant", "a", True, reasoning="why"))
    rendered = ChatRenderer(tokenizer).render(Conversation.create(messages), certify=True)
    (span,) = rendered.spans
    assert rendered.text[span.start : span.end].strip() == "[THINK]why[/THINK]a<|im_end|>"


@pytest.mark.parametrize(
    ("variables", "trained"),
    [({}, "<think>\n\n</think>\n\na<|im_end|>"), ({"enable_thinking": False}, "a<|im_end|>")],
)
def test_an_empty_thought_is_trained_unless_the_prompt_writes_it(
    small_tokenizer: Any, variables: dict[str, Any], trained: str
) -> None:
    if "trl/qwen3" not in TEMPLATES:
        pytest.skip("trl is not installed")
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES["trl/qwen3"], parts=False)
    set_template_variables(tokenizer, variables)
    messages = (Message("user", "q"), Message("assistant", "a", True))
    rendered = ChatRenderer(tokenizer, ends).render(Conversation.create(messages), certify=True)
    (span,) = rendered.spans
    assert rendered.text[span.start : span.end].rstrip("\n") == trained
