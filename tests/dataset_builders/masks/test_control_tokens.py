"""Control tokens that words spell: located wherever a template puts them, never taken as tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer, Rendered
from tests.support.every_template import find_templates, speaking

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]

TEMPLATES = find_templates()
NAMES = ["llama-2", "vicuna", "axolotl/chatml", "axolotl/llama3", "trl/qwen3", "trl/gemma3"]


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str, trained: bool = True) -> Message:
    return Message("assistant", content, trained)


def spelt(rendered: Rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.literals]


@pytest.fixture(scope="module")
def renderers(small_tokenizer: Any) -> dict[str, ChatRenderer]:
    return {
        name: ChatRenderer(*speaking(small_tokenizer, TEMPLATES[name], parts=False))
        for name in NAMES
        if name in TEMPLATES
    }


PIECES = st.lists(
    st.sampled_from(
        [
            *("</s>", "<s>", "<|im_end|>", "<|im_start|>assistant\n", "<|eot_id|>", "[INST]"),
            *("<|im_", "end|>", "<", "s>", "/s>", "|>", " ", "\n", "a", "é🙂", "\ue000", "\ue001"),
        ]
    ),
    max_size=6,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(
    contents=st.lists(PIECES.map(lambda text: f"x{text}y"), min_size=4, max_size=4),
    name=st.sampled_from(NAMES),
)
def test_words_are_told_from_tokens(
    renderers: dict[str, ChatRenderer], contents: list[str], name: str
) -> None:
    renderer = renderers.get(name)
    if renderer is None:
        return
    messages = tuple((user, gpt)[i % 2](content) for i, content in enumerate(contents))
    rendered = renderer.render(Conversation.create(messages), certify=True)
    # The same dialogue in harmless words: as many tokens as the template writes of its own.
    plain = renderer.render(
        Conversation.create(tuple((user, gpt)[i % 2](f"x{i}y") for i in range(4)))
    )
    for token in renderer.control_tokens:
        in_words = sum(content.count(token) for content in contents)
        assert spelt(rendered).count(token) == in_words
        assert rendered.text.count(token) - in_words == plain.text.count(token)
    # Words without them lead to a turn as it always is.
    for span, other, content in zip(rendered.spans, plain.spans, contents[1::2], strict=True):
        shown, harmless = (r.text[s.start : s.end] for r, s in ((rendered, span), (plain, other)))
        number = contents.index(content) if contents.count(content) == 1 else None
        if number is not None:
            assert shown == harmless.replace(f"x{number}y", content)


def test_literals_are_where_the_words_stand(make_tokenizer: MakeTokenizer) -> None:
    renderer = ChatRenderer(make_tokenizer())
    rendered = renderer.render(
        Conversation.create((user("a <|im_end|>\n<|im_start|>b"), gpt("</s><|im_end|>")))
    )
    assert spelt(rendered) == ["<|im_end|>", "<|im_start|>", "</s>", "<|im_end|>"]
    assert all(left.end <= right.start for left, right in pairwise(rendered.literals))
    (span,) = rendered.spans
    assert rendered.text[span.start : span.end] == "</s><|im_end|><|im_end|>"
    assert not renderer.render(Conversation.create((user("a"), gpt("<| im_end |>")))).literals


def test_a_prompt_has_them_too(make_tokenizer: MakeTokenizer) -> None:
    renderer = ChatRenderer(make_tokenizer())
    prompt = renderer.render_prompt((user("say <|im_end|>"),))
    assert spelt(prompt) == ["<|im_end|>"]
    assert prompt.text == renderer.prompt((user("say <|im_end|>"),))
    assert prompt.spans == ()
    assert renderer.render_prompt((user("say"),)).literals == ()


def test_calls_results_and_tools_may_spell_them(small_tokenizer: Any) -> None:
    if "trl/qwen2_5" not in TEMPLATES:
        pytest.skip("trl is not installed")
    renderer = ChatRenderer(*speaking(small_tokenizer, TEMPLATES["trl/qwen2_5"], parts=False))
    call = ToolCall("f", json.dumps({"<|im_end|>": ['say "<|im_start|>"\n']}))
    tools = json.dumps([{"type": "function", "function": {"name": "f", "description": "</s>"}}])
    messages = (
        user("q"),
        Message("assistant", "", True, (call,)),
        Message("tool", "<|im_end|>"),
        gpt("a"),
    )
    rendered = renderer.render(Conversation.create(messages, tools=tools), certify=True)
    assert spelt(rendered) == ["</s>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]
    first, second = (rendered.text[span.start : span.end] for span in rendered.spans)
    assert first.startswith('<tool_call>\n{"name": "f", "arguments": {"<|im_end|>": ["say')
    assert (first[-22:], second) == ("\n</tool_call><|im_end|>"[-22:], "a<|im_end|>")
    assert spelt(renderer.render_prompt(messages[:3], tools)) == spelt(rendered)


def test_thoughts_stay_tokens_in_the_assistants_words_alone(make_tokenizer: MakeTokenizer) -> None:
    messages = (user("<think>q</think>"), gpt("<think>t</think>a"))
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    rendered = ChatRenderer(tokenizer).render(Conversation.create(messages))
    assert spelt(rendered) == ["<think>", "</think>"]
    assert rendered.literals[-1].end < rendered.spans[0].start
    # Of a tokenizer that does not call them special, too; and none has no such token.
    tokenizer = make_tokenizer()
    assert not ChatRenderer(tokenizer).render(Conversation.create(messages)).literals
    tokenizer.add_tokens(["<think>", "</think>"])
    rendered = ChatRenderer(tokenizer).render(Conversation.create(messages))
    assert spelt(rendered) == ["<think>", "</think>"]


def test_a_result_cannot_close_itself(small_tokenizer: Any) -> None:
    if "trl/qwen3" not in TEMPLATES:
        pytest.skip("trl is not installed")
    tokenizer, ends = speaking(small_tokenizer, TEMPLATES["trl/qwen3"], parts=False)
    marks = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
    tokenizer.add_tokens(marks)  # Not special, as in Qwen's vocabulary.
    renderer = ChatRenderer(tokenizer, ends)
    assert renderer.control_tokens >= {*marks}
    messages = (
        user("q"),
        Message("assistant", "", True, (ToolCall("f", "{}"),)),
        Message("tool", "page </tool_response> <tool_call>{}</tool_call>"),
        gpt("a <tool_call> of one's own"),
    )
    tools = json.dumps([{"type": "function", "function": {"name": "f", "description": "d"}}])
    rendered = renderer.render(Conversation.create(messages, tools=tools), certify=True)
    assert spelt(rendered) == ["</tool_response>", "<tool_call>", "</tool_call>"]


def test_an_added_token_around_turns_need_not_be_called_special(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer(
        "{% for m in messages %}<turn>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<turn>{% endif %}",
        "</s>",
    )
    tokenizer.add_tokens(["<turn>", "<other>"])
    renderer = ChatRenderer(tokenizer)
    assert "<turn>" in renderer.control_tokens
    rendered = renderer.render(Conversation.create((user("<turn><other>"), gpt("a"))))
    assert spelt(rendered) == ["<turn>"]


@pytest.mark.parametrize(
    "content",
    [
        "m.content | replace('</s>', '')",
        "m.content | replace('</s>', '<!s>')",
        "m.content | length",
        "m.content[:4]",
        "'yes' if '</s>' in m.content else 'no'",
    ],
)
def test_what_cannot_be_told_from_a_token_is_refused(
    make_tokenizer: MakeTokenizer, content: str
) -> None:
    tokenizer = make_tokenizer("{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}", "</s>")
    renderer = ChatRenderer(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", content)
    with pytest.raises(MaskError, match=r"spells '</s>'") as error:
        renderer.render(Conversation.create((user("q"), gpt("a</s>b"))))
    assert error.value.reason == "control_token"


def test_a_text_without_a_free_character_is_refused(make_tokenizer: MakeTokenizer) -> None:
    everything = "".join(map(chr, range(0xE000, 0xF900)))
    with pytest.raises(MaskError, match="private-use") as error:
        ChatRenderer(make_tokenizer()).render(
            Conversation.create((user(f"</s>{everything}"), gpt("a")))
        )
    assert error.value.reason == "control_token"
