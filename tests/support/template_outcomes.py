"""What becomes of each shape of conversation under each template, and why."""

from __future__ import annotations

from tests.support.template_shapes import REWRITTEN, SHAPES

WORDS_AND_CALLS = ("words and a call", "words and calls", "reasoning, words and a call")
CALLS = (
    *("tools", "two calls", "parallel calls", "untrained call", "result first"),
    *("calls without texts", "reasoning and calls", *WORDS_AND_CALLS),
)
REASONING = ("reasoning", "reasoning and calls", "reasoning, words and a call")


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
    trl/deepseek_r1_distill trl/deepseek_r1_distill_training trl/lfm2 trl/lfm2_training trl/smolvlm
    trl/smolvlm_training trl/llama3 trl/llama3_training trl/llava_next trl/llava_next_training
    trl/phi3 trl/phi3_5
    trl/phi3_5_training trl/phi3_training trl/qwen2_5_vl trl/qwen2_5_vl_training
""")
# Write calls, but generation would not stop behind one, or would within the turn.
NO_END_OF_CALL = names("axolotl/command_a_tool_use")
# Write one call at most.
ONE_CALL = names("axolotl/llama3_2_vision trl/llama3_1 trl/llama3_2")
# Write the words behind the calls and the tool's answer, and no answer without a call.
CALLS_FIRST = names("""
    axolotl/gemma4 axolotl/gemma4_unified trl/diffusion_gemma trl/diffusion_gemma_training
    trl/gemma4 trl/gemma4_v3 trl/gemma4_v4 trl/gemma4_v5
""")
# Read no reasoning, and have marks of their own for thoughts.
NO_REASONING = names("""
    axolotl/command_a axolotl/command_a_rag axolotl/command_a_tool_use trl/gemma4_v2
""")
GPT_OSS = names("trl/gptoss trl/gptoss_training")
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
    trl/nemotron_3_5_lightning trl/nemotron_3_5_lightning_training
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
        ("thoughts", *REASONING),
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
        ("tools", "reasoning and calls"),
        names("axolotl/mistral_v2v3 axolotl/mistral_v3_tekken"),
    ),
    "words before a call are dropped when an answer follows": (
        ("words and a call", "words and calls", "reasoning and calls"),
        GPT_OSS,
    ),
    "the prompt opens a thought, a past turn has no thought": (
        (*SHAPES, "thoughts", "reasoning", "empty turns"),
        names("trl/deepseek_r1_distill"),
    ),
    "the prompt opens a thought, the turn has none": (
        (*SHAPES, "empty turns"),
        names("trl/deepseek_r1_distill_training"),
    ),
    "thoughts are dropped once the user speaks again": (
        ("reasoning and calls",),
        names("trl/qwen3 trl/glm4moe_training trl/lfm2_2_5 trl/lfm2_2_5_v2 trl/lfm2_2_5_vl")
        + CALLS_FIRST,
    ),
}


# Templates that the oldest releases tested with do not have.
NEWER = {
    "trl/deepseek_r1_distill", "trl/deepseek_r1_distill_training", "trl/diffusion_gemma",
    "trl/diffusion_gemma_training", "trl/gemma4", "trl/gemma4_v2", "trl/gemma4_v3",
    "trl/gemma4_v4", "trl/gemma4_v5", "trl/lfm2", "trl/lfm2_training", "trl/lfm2_2_5",
    "trl/lfm2_2_5_v2", "trl/lfm2_2_5_vl", "trl/nemotron_3_5_lightning",
    "trl/nemotron_3_5_lightning_training", "trl/smolvlm", "trl/smolvlm_training",
}  # fmt: skip


NAMED = {
    *(name for _, off in OFF_PROMPT.values() for name in off),
    *(*NO_CALLS, *NO_END_OF_CALL, *NO_TOOLS, *NO_SYSTEM, *SYSTEM_LEFT_OUT, *NEMOTRON, *ONE_CALL),
    *(*CALLS_FIRST, *NO_REASONING, *GPT_OSS, *QWEN3_5),
}
"""All templates named here."""


def expected(name: str) -> dict[str, str]:
    """What becomes of each shape under a template."""
    shapes = dict.fromkeys(SHAPES | REWRITTEN, "exact")
    for where, off in OFF_PROMPT.values():
        if name in off:
            shapes |= dict.fromkeys(where or shapes, "off prompt")
    if name in QWEN3_5:  # All that follows the last user turn thinks.
        shapes |= dict.fromkeys(set(CALLS) - {"tools", "reasoning and calls"}, "exact")
    if name == "trl/qwen3_5_nothink":  # Its prompt has an empty thought.
        shapes["reasoning, words and a call"] = "off prompt"
    if name in ("axolotl/gemma4", "axolotl/gemma4_unified"):
        shapes["untrained call"] = "exact"  # No empty thought behind a tool's answer.
    if name in CALLS_FIRST:
        shapes |= dict.fromkeys(WORDS_AND_CALLS, "template") | {"result first": "left_out"}
    if name in GPT_OSS:
        shapes |= dict.fromkeys(("reasoning", "reasoning, words and a call"), "template")
        shapes |= {"result first": "template", "parallel calls": "left_out"}
    if name in ONE_CALL:
        shapes["parallel calls"] = "template"
    if name in NO_TOOLS:
        shapes |= dict.fromkeys(CALLS, "tools_ignored")
    if name in NO_REASONING:
        shapes |= dict.fromkeys(REASONING, "reasoning")
    if name in NO_CALLS + NO_END_OF_CALL:
        refused = set(CALLS) - (set(REASONING) if name in NO_END_OF_CALL else set())
        shapes |= dict.fromkeys(refused, "template")
    if name in NO_SYSTEM + SYSTEM_LEFT_OUT:
        shapes["system"] = "template" if name in NO_SYSTEM else "left_out"
    if name in (*NEMOTRON, "axolotl/exaone4"):
        shapes["empty turns"] = "template"  # No two ways find a turn without words.
    if name == "trl/glm4moe":  # Nothing ends the last turn.
        shapes |= dict.fromkeys(shapes.keys() - {"demonstrations", "untrained call"}, "template")
    if name in UNENDED:
        shapes = dict.fromkeys(shapes, "unusable")
    return shapes
