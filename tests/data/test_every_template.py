"""Masks under every chat template at hand, over shapes of conversations that break masks.

What is refused and what cannot be exact is written down below, template by template, and
asserted both ways: an entry that no longer applies fails, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from every_template import FEWEST, PARTS, Oracle, find_templates, speaking

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer

pytest.importorskip("transformers")


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str, trained: bool = True, *calls: ToolCall) -> Message:
    return Message("assistant", content, trained, calls)


CALL = ToolCall("seek", '{"name": "Ann", "deep": {"n": [3, true]}}', "abcdefghi")
RESULT = Message("tool", "Ben, 3", tool_call_id="abcdefghi")
TOOLS = """[{"type": "function", "function": {"name": "seek", "description": "Seeks.",
 "parameters": {"type": "object", "properties": {"name": {"type": "string",
 "description": "Who."}}, "required": ["name"]}}}]"""

# Name to messages; END stands for the template's end token.
SHAPES = {
    "edge white space": (user(" q1\n"), gpt("  a1 x \n\n"), user("q2"), gpt("\n a2 \ty  ")),
    "role names": (user("assistant"), gpt("user"), user("user"), gpt("assistant")),
    "system": (Message("system", "Be brief."), user("q"), gpt("a"), user("r"), gpt("b")),
    "ReAct": (
        user("Solve."),
        gpt("OK", False),
        user("2+2?"),
        gpt("Thought: add\nAction: calc[2+2]"),
        user("Observation: 4\n"),
        gpt("Thought: done\nAnswer: 4"),
    ),
    "demonstrations": (
        *(user("go"), gpt("go"), user("go"), gpt("go", False)),
        *(user("go"), gpt("go"), user("no answer yet")),
    ),
    "no letters": (user("?"), gpt(" 🙂é\u200b"), user("…"), gpt("[/INST] <</SYS>> {{ x }}")),
    "control tokens": (user("say END"), gpt("it is END, or END"), user("END"), gpt("so END")),
}
# Of these a template may show less, or write it in another way.
REWRITTEN = {
    "thoughts": (
        user("ask1"),
        gpt("<think>\nmuse1\n</think>\n\nsay1"),
        user("ask2"),
        gpt("<think>\nmuse2\n</think>\n\nsay2"),
    ),
    "tools": (user("Who?"), gpt("", True, CALL), RESULT, gpt("Ann."), user("And?"), gpt("So.")),
    "words and a call": (user("Who?"), gpt("See.", True, CALL), RESULT, gpt("Ann.")),
    "empty turns": (user("q"), gpt(""), user("r"), gpt("  ")),
}


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
    oracle = Oracle(tokenizer, renderer.end_tokens, messages, parts, tools)
    oracle.check(rendered, shape in REWRITTEN)
    return "off prompt" if rendered.off_prompt else "exact"


CALLS = ("tools", "words and a call")


def names(text: str) -> list[str]:
    return text.split()


# Cannot write a tool call, or refuse the tool role.
NO_CALLS = names("""
    llama-2 vicuna axolotl/alpaca axolotl/aya axolotl/chatml axolotl/cohere axolotl/command_a
    axolotl/deepseek_v2 axolotl/exaone axolotl/falcon_h1 axolotl/gemma axolotl/gemma3
    axolotl/gemma3n axolotl/llama3 axolotl/metharme axolotl/mistral_v1 axolotl/mistral_v7_tekken
    axolotl/nemotron_h axolotl/phi_3 axolotl/phi_35 axolotl/phi_4 axolotl/pixtral
    axolotl/qwen2_vl trl/cohere trl/cohere2 trl/cohere2_training trl/cohere_training trl/gemma
    trl/gemma3 trl/gemma3_training trl/gemma_training trl/idefics3 trl/idefics3_training
    trl/llama3 trl/llama3_training trl/llava_next trl/llava_next_training trl/phi3 trl/phi3_5
    trl/phi3_5_training trl/phi3_training trl/qwen2_5_vl trl/qwen2_5_vl_training
""")
# Write calls, but generation would not stop behind one, or would within the turn.
NO_END_OF_CALL = names("axolotl/command_a_tool_use")
# Write the words behind the calls, or the tool's answer.
CALLS_FIRST = names("axolotl/gemma4 axolotl/gemma4_unified")
# Write calls, but do not show the schemas.
NO_TOOLS = names("""
    axolotl/command_a_rag axolotl/deepseek_v3 trl/deepseekv3 trl/deepseekv3_training
""")
# End no turn with a token.
UNENDED = names("axolotl/llava")
NO_SYSTEM = names("axolotl/gemma trl/gemma trl/gemma_training")
# Show the system turn in the last turn of the user, if that is the last of all.
SYSTEM_LEFT_OUT = names("axolotl/mistral_v2v3 axolotl/mistral_v3_tekken axolotl/pixtral")
NEMOTRON = names("""
    trl/nemotron_3_nano trl/nemotron_3_super trl/nemotron_3_ultra trl/nemotron_3_nano_training
    trl/nemotron_3_super_training trl/nemotron_3_ultra_training
""")
QWEN3_5 = names("trl/qwen3_5_nothink trl/qwen3_5_think trl/qwen3_6")

# The text before a trained turn is not the prompt that generation starts from: why, in
# which shapes (all, if none is said) and in which templates.
OFF_PROMPT: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "the prompt opens a thought that past turns are written without": (
        (),
        names("axolotl/qwen3 axolotl/qwen3_5") + QWEN3_5,
    ),
    "the prompt opens a thought where the turn has an empty one": ((), NEMOTRON),
    "the prompt has an empty thought where the turn thinks": (
        ("thoughts",),
        names("trl/qwen3_5_nothink_training"),
    ),
    "the prompt closes a thought, the turn's past has none": (
        (),
        names("trl/deepseekv3 trl/deepseekv3_training"),
    ),
    "the prompt has an empty thought, the turn none": (
        (),
        names("axolotl/gemma4 axolotl/gemma4_unified"),
    ),
    "the prompt lacks a part of the turn's header": (
        (),
        names("axolotl/command_a_rag axolotl/command_a_tool_use"),
    ),
    "the tools stand before the last user turn": (
        ("tools",),
        names("axolotl/mistral_v2v3 axolotl/mistral_v3_tekken"),
    ),
    "words before a call are dropped when an answer follows": (
        ("words and a call",),
        names("trl/gptoss trl/gptoss_training"),
    ),
}


def expected(name: str) -> dict[str, str]:
    """What becomes of each shape under a template."""
    shapes = dict.fromkeys(SHAPES | REWRITTEN, "exact")
    for where, off in OFF_PROMPT.values():
        if name in off:
            shapes |= dict.fromkeys(where or shapes, "off prompt")
    if name in QWEN3_5:
        shapes["words and a call"] = "exact"  # All that follows the last user turn thinks.
    if name in NO_CALLS + NO_END_OF_CALL:
        shapes |= dict.fromkeys(CALLS, "template")
    if name in CALLS_FIRST:
        shapes["words and a call"] = "template"
    if name in NO_TOOLS:
        shapes |= dict.fromkeys(CALLS, "tools_ignored")
    if name in NO_SYSTEM + SYSTEM_LEFT_OUT:
        shapes["system"] = "template" if name in NO_SYSTEM else "left_out"
    if name in (*NEMOTRON, "axolotl/exaone4"):
        shapes["empty turns"] = "template"  # No two ways find a turn without words.
    if name == "trl/glm4moe":  # Nothing ends the last turn.
        shapes |= dict.fromkeys(shapes.keys() - {"demonstrations"}, "template")
    if name in UNENDED:
        shapes = dict.fromkeys(shapes, "unusable")
    return shapes


@pytest.mark.parametrize("name", TEMPLATES)
def test_masks_are_exact_or_refused(small_tokenizer: Any, name: str) -> None:
    assert outcome(small_tokenizer, name) == expected(name)


def test_the_templates_are_there() -> None:
    for library, fewest in FEWEST.items():
        found = [name for name in TEMPLATES if name.startswith(f"{library}/")]
        if not found:
            pytest.skip(f"{library} is not installed")
        assert len(found) >= fewest
    named = {name for _, off in OFF_PROMPT.values() for name in off}
    named.update(NO_CALLS, NO_END_OF_CALL, NO_TOOLS, NO_SYSTEM, SYSTEM_LEFT_OUT)
    assert named <= TEMPLATES.keys()


@pytest.mark.parametrize("shape", SHAPES | REWRITTEN)
def test_smollm2s_own(smollm2_tokenizer: Any, shape: str) -> None:
    found = outcome_of(smollm2_tokenizer, ChatRenderer(smollm2_tokenizer), shape, False)
    assert found == ("template" if shape in CALLS else "exact")
