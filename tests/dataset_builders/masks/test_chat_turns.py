"""Which characters of a turn are trained: thoughts, tool calls and what stands around words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from tests.support.every_template import find_templates, rendering, speaking

pytest.importorskip("transformers")

MakeTokenizer = Callable[..., Any]
Renderer = Callable[[str], ChatRenderer]

TEMPLATES = find_templates()


@pytest.fixture(scope="module")
def renderer_for(small_tokenizer: Any) -> Renderer:
    """Makes a renderer of the template of that name, with its end tokens."""

    def make(name: str) -> ChatRenderer:
        if name not in TEMPLATES:
            pytest.skip(f"{name.partition('/')[0]} is not installed")
        return ChatRenderer(*speaking(small_tokenizer, TEMPLATES[name], parts=False))

    return make


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str, trained: bool = True, *calls: ToolCall) -> Message:
    return Message("assistant", content, trained, calls)


def trained(renderer: ChatRenderer, *messages: Message, tools: str = "") -> list[str]:
    rendered = renderer.render(Conversation.create(messages, tools=tools), certify=True)
    return [rendered.text[span.start : span.end] for span in rendered.spans]


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
        ("axolotl/chatml", ["<think>\nt1\n</think>\n\na1", "<think>\nt2\n</think>\n\na2"]),
        ("llama-2", [" <think>\nt1\n</think>\n\na1 ", " <think>\nt2\n</think>\n\na2 "]),
        # Dropped from the history, or from every turn.
        ("trl/qwen3", ["a1", "<think>\nt2\n</think>\n\na2"]),
        ("trl/deepseekv3", ["\n\na1", "\n\na2"]),
        # The prompt opens the thought.
        ("trl/qwen3_5_think", ["a1", "t2\n</think>\n\na2"]),
        # The prompt opens an empty one, the turn has another.
        ("axolotl/qwen3", ["a1", "<think>\nt2\n</think>\n\na2"]),
        # Written anew by the template.
        ("trl/glm4moe_training", ["\n<think></think>\na1", "\n<think>t2</think>\na2"]),
        ("trl/qwen3_training", ["<think>\nt1\n</think>\n\na1", "<think>\nt2\n</think>\n\na2"]),
    ],
)
def test_thoughts_are_trained_where_the_template_keeps_them(
    renderer_for: Renderer, name: str, turns: list[str]
) -> None:
    renderer = renderer_for(name)
    ends = [next(end for end in renderer.end_tokens if shown.endswith(end))
            for shown in trained(renderer, *THOUGHTS)]  # fmt: skip
    assert trained(renderer, *THOUGHTS) == [
        turn + end for turn, end in zip(turns, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        # The blanks of the layout are generated, as are an empty thought and a channel.
        ("llama-2", [" a </s>", " b </s>"]),
        ("vicuna", [" a</s>", " b</s>"]),
        ("trl/qwen3", ["a<|im_end|>", "<think>\n\n</think>\n\nb<|im_end|>"]),
        (
            "trl/gptoss",
            ["<|channel|>final<|message|>a<|end|>", "<|channel|>final<|message|>b<|return|>"],
        ),
    ],
)
def test_what_generation_has_to_produce_is_trained(
    renderer_for: Renderer, name: str, turns: list[str]
) -> None:
    assert trained(renderer_for(name), user("q"), gpt("a"), user("r"), gpt("b")) == turns


CALL = ToolCall("find", '{"name": "Ann"}')
TOOLS = '[{"type": "function", "function": {"name": "find", "parameters": {}}}]'


@pytest.mark.parametrize(("content", "before"), [("", ""), ("See.", "See.\n")])
def test_a_tool_call_is_trained_with_its_turn(
    renderer_for: Renderer, content: str, before: str
) -> None:
    renderer = renderer_for("trl/qwen2_5")
    messages = (
        user("Who?"),
        gpt(content, True, CALL, CALL),
        Message("tool", "Ann, 3"),
        gpt("Ann."),
        user("And?"),
        gpt(content, False, CALL),
    )
    call = '<tool_call>\n{"name": "find", "arguments": {"name": "Ann"}}\n</tool_call>'
    assert trained(renderer, *messages) == [f"{before}{call}\n{call}<|im_end|>", "Ann.<|im_end|>"]


def test_the_template_sees_the_tools(renderer_for: Renderer) -> None:
    renderer = renderer_for("trl/qwen2_5")
    messages = (user("Who?"), gpt("", True, CALL))
    with_tools = renderer.render(Conversation.create(messages, tools=TOOLS)).text
    assert '"name": "find", "parameters": {}' in with_tools
    assert with_tools.startswith(renderer.prompt(messages[:1], TOOLS))
    assert renderer.render_prompt(messages[:1], TOOLS).text == renderer.prompt(messages[:1], TOOLS)
    for none in ("", "[]"):
        assert renderer.prompt(messages[:1], none) == renderer.prompt(messages[:1])
    for bad in ("{}", "[1]", "[", '"x"'):
        with pytest.raises(MaskError, match="tools: ") as error:
            renderer.render(Conversation.create(messages, tools=bad))
        assert error.value.reason == "tools"


@pytest.mark.parametrize(
    ("name", "conversation", "reason", "words"),
    [
        # Nothing of the schemas, the system turn or a tool's answer may be lost unseen.
        ("axolotl/chatml", ((user("q"), gpt("a")), TOOLS), "tools_ignored", "not show the 1 tools"),
        (
            "axolotl/pixtral",
            ((Message("system", "s"), user("q"), gpt("a")), ""),
            "left_out",
            "message 0: the chat template omits this system turn",
        ),
        (
            "axolotl/alpaca",
            ((user("q"), gpt("a"), Message("tool", "q"), gpt("b")), ""),
            "left_out",
            "message 2: the chat template omits this tool turn",
        ),
        ("llama-2", ((user("q"), gpt("", True, CALL)), ""), "template", "cannot write a tool call"),
    ],
)
def test_a_context_that_is_not_shown_is_refused(
    renderer_for: Renderer,
    name: str,
    conversation: tuple[tuple[Message, ...], str],
    reason: str,
    words: str,
) -> None:
    messages, tools = conversation
    with pytest.raises(MaskError, match=words) as error:
        renderer_for(name).render(Conversation.create(messages, tools=tools))
    assert error.value.reason == reason


def test_arguments_are_given_as_the_template_writes_them(make_tokenizer: MakeTokenizer) -> None:
    turn = (
        "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{%- for c in m.tool_calls or [] -%}CALL{%- endfor -%}<|im_end|>\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
    )
    for write, found in (
        ("{{ c.function.arguments | tojson }}", '{"name": "Ann"}'),
        ("{{ '!' + c.function.arguments }}", '!{"name": "Ann"}'),
        ("{{ c.function.arguments }}", '{"name": "Ann"}'),
        (
            "{{ c.function.arguments if c.function.arguments is string else 1 / 0 }}",
            '{"name": "Ann"}',
        ),
    ):
        renderer = ChatRenderer(make_tokenizer(turn.replace("CALL", write)))
        assert trained(renderer, user("q"), gpt("", True, CALL)) == [found + "<|im_end|>"]
    # Python's notation from an object, JSON within JSON from a text: none is a call.
    garbled = "{{ (c.function.arguments | tojson) if c.function.arguments is string else c }}"
    renderer = ChatRenderer(make_tokenizer(turn.replace("CALL", garbled)))
    with pytest.raises(MaskError, match="leaves the arguments out or garbles them"):
        renderer.render(Conversation.create((user("q"), gpt("", True, CALL))))


def test_a_turn_that_would_stop_before_its_end_is_refused(renderer_for: Renderer) -> None:
    # gpt-oss closes the words with the token that also ends an answer, then calls.
    messages = (user("q"), gpt("Hm.", True, CALL), Message("tool", "r", tool_call_id="1"))
    with pytest.raises(MaskError, match=r"would stop at '<\|end\|>' within it"):
        renderer_for("trl/gptoss").render(Conversation.create(messages))


def test_the_text_is_the_templates_own(renderer_for: Renderer, small_tokenizer: Any) -> None:
    tokenizer, _ = speaking(small_tokenizer, TEMPLATES["llama-2"], parts=False)
    rendered = renderer_for("llama-2").render(Conversation.create(THOUGHTS))
    assert rendered.text == rendering(tokenizer, THOUGHTS)
    assert (rendered.way, rendered.certified, rendered.off_prompt) == ("marks", False, 0)


def test_a_template_that_writes_the_date_writes_one_and_the_same(
    make_tokenizer: MakeTokenizer,
) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}|" + make_tokenizer().chat_template
    renderer = ChatRenderer(make_tokenizer(dated))
    messages = (Message("user", "q"), Message("assistant", "a", True))
    rendered = renderer.render(Conversation.create(messages), certify=True)
    assert rendered.text.startswith("26 Jul 2024|")
    assert renderer.prompt(messages[:1]).startswith("26 Jul 2024|")


@pytest.mark.parametrize("lead", ["", "\n", "  {% if true %}\n", " {#- x -#} "])
def test_the_date_changes_nothing_else_of_a_template(
    make_tokenizer: MakeTokenizer, lead: str
) -> None:
    end = "{% endif %}" if "if" in lead else ""
    asks = "{% macro day() %}{{ strftime_now('%d%%%-d %A') }}{% endmacro %}{{ day() }}|"
    plain = "{% macro day() %}26%26 Friday{% endmacro %}{{ day() }}|"
    texts = [
        ChatRenderer(make_tokenizer(lead + date + make_tokenizer().chat_template + end)).prompt(
            [Message("user", "q")]
        )
        for date in (asks, plain)
    ]
    assert "26%26 Friday|" in texts[0]
    assert texts[0] == texts[1]
