"""The Llama-2 layout, and what is refused: templates, turns and tokenizers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.chat_templates import load_template

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]

GEMMA = (
    "{%- for m in messages -%}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{%- endfor -%}"
)


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str) -> Message:
    return Message("assistant", content, trained=True)


def conversation(*messages: Message) -> Conversation:
    return Conversation.create(messages)


ROUNDS = (user("a?"), gpt(" b.\n"), user("c?"), gpt("d."))
TWO_ROUNDS = "a? [/INST] b. </s><s>[INST] c? [/INST] d. </s>"


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (
            (),
            "<s>[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
            + TWO_ROUNDS,
        ),
        ((Message("system", " S. "),), "<s>[INST] <<SYS>>\nS.\n<</SYS>>\n\n" + TWO_ROUNDS),
        ((Message("system", ""),), "<s>[INST] " + TWO_ROUNDS),
    ],
)
def test_the_llama2_layout_is_the_published_one(
    make_tokenizer: MakeTokenizer, first: tuple[Message, ...], text: str
) -> None:
    renderer = ChatRenderer(make_tokenizer(load_template("llama-2"), "</s>"))
    rendered = renderer.render(conversation(*first, *ROUNDS))
    assert rendered.text == text
    assert [text[span.start : span.end] for span in rendered.spans] == [" b. </s>", " d. </s>"]
    # What the environment says stands in the user's place.
    tool = (*first, *ROUNDS[:2], Message("tool", "c?"), *ROUNDS[3:])
    assert renderer.render(conversation(*tool)).text == text


@pytest.mark.parametrize("messages", [(gpt("a"),), (user("q"), user("r")), (user("q"), ROUNDS[1])])
def test_a_refusal_is_a_mask_error_in_the_templates_words(
    make_tokenizer: MakeTokenizer, messages: tuple[Message, ...]
) -> None:
    late = (*messages, Message("system", "s")) if len(messages) > 1 else messages
    with pytest.raises(MaskError, match=r"must alternate|may only come first"):
        ChatRenderer(make_tokenizer(load_template("llama-2"), "</s>")).render(conversation(*late))


@pytest.mark.parametrize(
    ("content", "answer", "words"),
    [
        ("m['content'] ~ m['content']", "a", "depends on its content"),
        ("m['content'].split('</think>')[-1]", "<think>b</think>", "omits"),
        ("m['content'] ~ (m['content'] | length)", "ab", "depends on its content"),
        ("(m['content'] | length) ~ m['content']", "ab", r"only one method finds it \(sentinels"),
        # Trimmed, so that marks are needed, and none is left.
        ("m['content'] | trim", " " + "".join(map(chr, range(0xE000, 0xF8FF))), "private-use"),
    ],
)
def test_a_turn_that_cannot_be_located_is_refused(
    make_tokenizer: MakeTokenizer, content: str, answer: str, words: str
) -> None:
    tokenizer = make_tokenizer(
        "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}", "</s>"
    )
    renderer = ChatRenderer(tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", content)
    with pytest.raises(MaskError, match=words):
        renderer.render(conversation(user("q"), gpt(answer)))


def test_an_unusable_tokenizer_is_refused_at_once(make_tokenizer: MakeTokenizer) -> None:
    from transformers import ByT5Tokenizer

    tokenizer = make_tokenizer()
    with pytest.raises(ConfigError, match="slow tokenizer"):
        ChatRenderer(ByT5Tokenizer(chat_template=tokenizer.chat_template))
    for unknown in ("", "<|imend|>"):
        with pytest.raises(ConfigError, match="expected one token"):
            ChatRenderer(tokenizer, [unknown])
    assert ChatRenderer(tokenizer, "</s>").end_tokens == ("<|im_end|>", "</s>")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no eos token"):
        ChatRenderer(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template.*chat_template: llama-2"):
        ChatRenderer(tokenizer)
    with pytest.raises(ConfigError, match="'llama2', expected one of chatml-tools, llama-2"):
        load_template("llama2")


def test_a_template_that_wants_other_contents_is_refused(make_tokenizer: MakeTokenizer) -> None:
    for template in ("{{ messages[0]['content'][0].text.strip() }}", "{{ messages[0].words }}"):
        with pytest.raises(ConfigError, match="cannot render plain user and assistant turns"):
            ChatRenderer(make_tokenizer(template))


def test_a_template_may_take_contents_as_parts(make_tokenizer: MakeTokenizer) -> None:
    turn = "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}<|im_end|>\n"
    renderer = ChatRenderer(make_tokenizer("{% for m in messages %}" + turn + "{% endfor %}"))
    rendered = renderer.render(conversation(user("q"), gpt("a")), certify=True)
    assert rendered.text == "q<|im_end|>\na<|im_end|>\n"
    assert [rendered.text[span.start : span.end] for span in rendered.spans] == ["a<|im_end|>"]


def test_a_template_without_an_end_token_is_refused(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    with pytest.raises(ConfigError, match=r"without a token.*'user: 3.*expected <\|im_end\|>"):
        ChatRenderer(tokenizer)


@pytest.mark.parametrize(
    ("template", "end", "eos"),
    [(None, "<|im_end|>", "<|im_start|>"), (GEMMA, "<end_of_turn>", "</s>")],
)
def test_an_end_token_that_is_not_eos_has_to_be_named(
    make_tokenizer: MakeTokenizer, template: str | None, end: str, eos: str
) -> None:
    tokenizer = make_tokenizer(template, eos=end)
    tokenizer.eos_token = eos
    with pytest.raises(ConfigError) as error:
        ChatRenderer(tokenizer)
    assert f"eos_token is {eos!r}" in str(error.value)
    assert f"Set special_tokens: {{eos_token: {end!r}}} or eot_tokens: [{end!r}]" in str(
        error.value
    )
    renderer = ChatRenderer(tokenizer, [end])
    assert renderer.end_tokens == (eos, end)
    rendered = renderer.render(conversation(user("q"), gpt("a")))
    assert [rendered.text[span.start : span.end] for span in rendered.spans] == ["a" + end]


def test_the_eos_of_the_unrepaired_smollm2_is_refused(smollm2_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(smollm2_tokenizer)
    tokenizer.eos_token = "<|im_start|>"
    with pytest.raises(ConfigError, match=r"eot_tokens: \['<\|im_end\|>'\]"):
        ChatRenderer(tokenizer)
