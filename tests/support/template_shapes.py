"""Shapes of conversations that break masks."""

from __future__ import annotations

from dataset_builders.conversation import Message, ToolCall


def user(content: str) -> Message:
    return Message("user", content)


def gpt(content: str, trained: bool = True, *calls: ToolCall) -> Message:
    return Message("assistant", content, trained, calls)


CALL = ToolCall("seek", '{"name": "Ann", "deep": {"n": [3, true]}}', "abcdefghi")
RESULT = Message("tool", "Ben, 3", tool_call_id="abcdefghi")
TOOLS = """[{"type": "function", "function": {"name": "seek", "description": "Seeks.",
 "parameters": {"type": "object", "properties": {"name": {"type": "string",
 "description": "Who."}}, "required": ["name"]}}}]"""

NEXT = ToolCall("seek", '{"name": "Eve", "deep": {"n": [5, false]}}', "ihgfedcba")
OTHER = Message("tool", "Dan: 7", tool_call_id="ihgfedcba")


def thinks(reasoning: str, content: str, *calls: ToolCall) -> Message:
    return Message("assistant", content, True, calls, reasoning=reasoning)


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
    "calls without texts": (
        *(user("Who?"), gpt("", True, ToolCall("seek", '{"n": 31}', "abcdefghi")), RESULT),
        *(gpt("", True, ToolCall("seek", "{}", "ihgfedcba")), OTHER, gpt("Ann.")),
    ),
    "words and a call": (user("Who?"), gpt("See.", True, CALL), RESULT, gpt("Ann.")),
    "two calls": (
        user("Who?"),
        gpt("", True, CALL),
        RESULT,
        gpt("", True, NEXT),
        OTHER,
        gpt("Ann."),
    ),
    "parallel calls": (user("Who?"), gpt("", True, CALL, NEXT), RESULT, OTHER, gpt("Ann.")),
    "words and calls": (
        *(user("Who?"), gpt("See1.", True, CALL), RESULT),
        *(gpt("See2.", True, NEXT), OTHER, gpt("Ann.")),
    ),
    "untrained call": (
        *(user("Who?"), gpt("", False, CALL), RESULT),
        *(gpt("", True, NEXT), OTHER, gpt("Ann.", False)),
    ),
    "result first": (user("Who?"), RESULT, gpt("", True, NEXT), OTHER, gpt("Ann.")),
    "reasoning": (user("ask1"), thinks("muse1", "say1"), user("ask2"), thinks("muse2", "say2")),
    "reasoning and calls": (
        *(user("ask1"), thinks("muse1", "", CALL), RESULT),
        *(thinks("muse2", "", NEXT), OTHER, thinks("muse3", "say1"), user("ask2"), gpt("say2")),
    ),
    "reasoning, words and a call": (user("ask1"), thinks("muse1", "say1", CALL), RESULT, gpt("z.")),
    "empty turns": (user("q"), gpt(""), user("r"), gpt("  ")),
}
