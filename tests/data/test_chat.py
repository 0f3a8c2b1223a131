from __future__ import annotations

import importlib.util
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.chat import ChatRenderer
from dataset_builders.chat_templates import load_template, template_message, template_names
from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError

pytest.importorskip("transformers")

MakeTokenizer = Callable[[str], Any]

# Template to the token that ends the assistant's turn in it.
ENDS = {
    "llama-2": "</s>",
    "chatml": "<|im_end|>",
    "axolotl/alpaca": "</s>",
    "axolotl/aya": "<|END_OF_TURN_TOKEN|>",
    "axolotl/cohere": "<|END_OF_TURN_TOKEN|>",
    "axolotl/deepseek_v2": "</s>",
    "axolotl/exaone": "[|endofturn|]",
    "axolotl/falcon_h1": "<|im_end|>",
    "axolotl/gemma": "<end_of_turn>",
    "axolotl/gemma3": "<end_of_turn>",
    "axolotl/gemma4": "<turn|>",
    "axolotl/jamba": "<|eom|>",
    "axolotl/llama3": "<|eot_id|>",
    "axolotl/llama3_2_vision": "<|eot_id|>",
    "axolotl/llama4": "<|eot|>",
    "axolotl/mistral_v1": "</s>",
    "axolotl/mistral_v2v3": "</s>",
    "axolotl/mistral_v3_tekken": "</s>",
    "axolotl/mistral_v7_tekken": "</s>",
    "axolotl/phi_35": "<|end|>",
    "axolotl/phi_4": "<|im_end|>",
    "axolotl/pixtral": "</s>",
    "axolotl/qwen_25": "<|im_end|>",
    "trl/deepseekv3": "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "trl/glm4moe_training": "<|user|>",
    "trl/llama3_1": "<|eot_id|>",
    "trl/nemotron_3_nano": "<|im_end|>",
    "trl/phi3": "<|end|>",
    "trl/qwen2_5": "<|im_end|>",
    "trl/qwen3": "<|im_end|>",
    "trl/qwen3_5_think": "<|im_end|>",
    "trl/qwen3_training": "<|im_end|>",
}
FOLDERS = {
    "axolotl": "axolotl/utils/chat_templates/templates",
    "trl": "trl/chat_templates",
}


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str, trained: bool = True) -> Message:
    return Message("assistant", content, trained)


SHAPES = {
    "edge white space": (user(" q1\n"), gpt("  a1 x \n\n"), user("q2"), gpt("\n a2 \ty  ")),
    "role names": (user("assistant"), gpt("user"), user("user"), gpt("assistant")),
    "system first": (Message("system", "Be brief."), user("q"), gpt("a"), user("r"), gpt("b")),
    "many lines": (
        user("q\n\nr"),
        gpt("a\n\n```py\nx = 1\n```\nend", False),
        user("o"),
        gpt("b\n"),
    ),
    "ReAct": (
        user("Solve."),
        gpt("OK", False),
        user("2+2?"),
        gpt("Thought: add\nAction: calc[2+2]"),
        user("Observation: 4\n"),
        gpt("Thought: done\nAnswer: 4"),
    ),
    "equal turns": (user("go"), gpt("go", False), user("go"), gpt("go"), user("go"), gpt("go")),
    "no letters": (user("?"), gpt(" 🙂é\u200b"), user("…"), gpt("[/INST] <</SYS>> {{ x }}")),
    "cut inside": (user("q"), gpt("a"), user("no answer yet")),
}


# What templates do to contents.
STRIPS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.rstrip,
    lambda text: text.lstrip("\n"),
)


def template_text(name: str) -> str | None:
    if name == "chatml":
        return None
    if name in template_names():
        return load_template(name)
    library, _, file = name.partition("/")
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        pytest.skip(f"{library} is not installed")
    return (Path(spec.origin).parents[1] / FOLDERS[library] / f"{file}.jinja").read_text("utf-8")


@pytest.fixture(scope="module")
def tokenizer_for(make_tokenizer: Callable[..., Any]) -> MakeTokenizer:
    """Makes a tokenizer with the template of that name and its end token as eos."""
    return lambda name: make_tokenizer(template_text(name), ENDS[name])


def rendering(tokenizer: Any, messages: tuple[Message, ...], **options: Any) -> str:
    rows = [template_message(message) for message in messages]
    text = tokenizer.apply_chat_template(rows, tokenize=False, **options)
    assert isinstance(text, str)
    return text


def conversation(messages: tuple[Message, ...]) -> Conversation:
    return Conversation.create(messages)


def expected(
    tokenizer: Any, messages: tuple[Message, ...], text: str, end: str
) -> list[tuple[int, int]]:
    """Where the trained turns must be: found by a twin whose contents are all different.

    The twin's text without its contents is the template's own text; with the contents
    put between, as they are or stripped, it must give the text.
    """
    twin = tuple(Message(m.role, f"Q{i}Z", m.trained) for i, m in enumerate(messages))
    skeleton = rendering(tokenizer, twin)
    # Some templates move the system turn into the last turn of the user.
    order = sorted(range(len(messages)), key=lambda index: skeleton.find(f"Q{index}Z"))
    # Or leave it out, if the last turn is the assistant's.
    order = [i for i in order if messages[i].role != "system" or f"Q{i}Z" in skeleton]
    for strips in product(STRIPS, repeat=3):
        strip = dict(zip(("user", "assistant", "system"), strips, strict=True))
        built, rest, spans = "", skeleton, []
        for index in order:
            before, found, rest = rest.partition(f"Q{index}Z")
            assert found, "the template left a turn out"
            content = strip[messages[index].role](messages[index].content)
            blank = rest[: len(rest) - len(rest.lstrip())]
            stop = len(built + before + content + blank + end)
            spans.append((messages[index].trained, (len(built + before), stop)))
            assert not messages[index].trained or rest.startswith(blank + end)
            built += before + content
        if built + rest == text:
            return [span for trained, span in spans if trained]
    pytest.fail("the template does more than to strip contents")


def check(tokenizer: Any, messages: tuple[Message, ...]) -> None:
    rendered = ChatRenderer(tokenizer).render(conversation(messages))
    assert rendered.text == rendering(tokenizer, messages)
    spans = expected(tokenizer, messages, rendered.text, tokenizer.eos_token)
    assert [tuple(span) for span in rendered.spans] == spans
    assert all(left.end <= right.start for left, right in pairwise(rendered.spans))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ENDS)
def test_the_trained_turns_and_their_ends_are_found(
    tokenizer_for: MakeTokenizer, name: str, shape: str
) -> None:
    tokenizer, messages = tokenizer_for(name), SHAPES[shape]
    if name == "axolotl/gemma" and shape == "system first":
        with pytest.raises(MaskError, match="System role not supported"):
            ChatRenderer(tokenizer).render(conversation(messages))
        return
    check(tokenizer, messages)


@pytest.mark.parametrize("shape", SHAPES)
def test_smollm2s_own_template(smollm2_tokenizer: Any, shape: str) -> None:
    check(smollm2_tokenizer, SHAPES[shape])


THOUGHTS = (
    user("q1"),
    gpt("<think>\nt1\n</think>\n\na1"),
    user("q2"),
    gpt("<think>\nt2\n</think>\n\na2"),
)


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        # Kept as they are.
        ("chatml", ("<think>\nt1\n</think>\n\na1", "<think>\nt2\n</think>\n\na2")),
        ("llama-2", ("<think>\nt1\n</think>\n\na1 ", "<think>\nt2\n</think>\n\na2 ")),
        # Dropped from the history, or from every turn.
        ("trl/qwen3", ("a1", "<think>\nt2\n</think>\n\na2")),
        ("trl/deepseekv3", ("\n\na1", "\n\na2")),
        # The prompt opens the thought.
        ("trl/qwen3_5_think", ("a1", "t2\n</think>\n\na2")),
        # Written anew by the template.
        ("trl/glm4moe_training", ("a1", "\n<think>t2</think>\na2")),
        ("trl/qwen3_training", ("<think>\nt1\n</think>\n\na1", "<think>\nt2\n</think>\n\na2")),
    ],
)
def test_thoughts_are_trained_where_the_template_keeps_them(
    tokenizer_for: MakeTokenizer, name: str, turns: tuple[str, ...]
) -> None:
    tokenizer = tokenizer_for(name)
    rendered = ChatRenderer(tokenizer).render(conversation(THOUGHTS))
    assert rendered.text == rendering(tokenizer, THOUGHTS)
    trained = [rendered.text[span.start : span.end] for span in rendered.spans]
    assert trained == [turn + tokenizer.eos_token for turn in turns]
    # The right one of several equal places.
    for span, following in zip(rendered.spans, ("q2", None), strict=True):
        assert following is None or span.end < rendered.text.index(following)
        assert span.start > rendered.text.index("q1" if following else "q2")


@pytest.mark.parametrize("name", ["llama-2", "chatml", "axolotl/llama3", "axolotl/gemma3"])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_begins_where_the_prompt_ends(
    tokenizer_for: MakeTokenizer, name: str, shape: str
) -> None:
    messages, renderer = SHAPES[shape], ChatRenderer(tokenizer_for(name))
    rendered = renderer.render(conversation(messages))
    trained = [index for index, message in enumerate(messages) if message.trained]
    for span, index in zip(rendered.spans, trained, strict=True):
        prompt = renderer.prompt(messages[:index])
        assert rendered.text.startswith(prompt)
        between = rendered.text[len(prompt) : span.start]
        assert between == (" " if name == "llama-2" else "")


@pytest.mark.parametrize(("content", "before"), [("", ""), ("See.", "See.\n")])
def test_a_tool_call_is_trained_with_its_turn(
    tokenizer_for: MakeTokenizer, content: str, before: str
) -> None:
    tokenizer = tokenizer_for("trl/qwen2_5")
    call = ToolCall("find", '{"name": "Ann"}')
    messages = (
        user("Who?"),
        Message("assistant", content, True, (call,)),
        Message("tool", "Ann, 3"),
        gpt("Ann."),
        user("And?"),
        Message("assistant", content, False, (call,)),
    )
    rendered = ChatRenderer(tokenizer).render(conversation(messages))
    assert rendered.text == rendering(tokenizer, messages)
    assert [rendered.text[span.start : span.end] for span in rendered.spans] == [
        f'{before}<tool_call>\n{{"name": "find", "arguments": {{"name": "Ann"}}}}'
        "\n</tool_call><|im_end|>",
        "Ann.<|im_end|>",
    ]
    assert rendered.spans[0].end < rendered.text.index("Ann, 3")
