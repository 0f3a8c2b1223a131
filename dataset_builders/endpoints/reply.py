"""A model's reply to one request, with its usage."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_builders.endpoints.answer import Answer
from dataset_builders.finish_reason import is_cut
from dataset_builders.tools import ToolCall

CONTEXT_FULL = "context_full"
"""`finish_reason` of a turn truncated by the model's context."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply, with its token usage and cost.

    Attributes:
        text: The turn; "" if it is empty, such as with only a tool call.
        finish_reason: The endpoint's, such as "stop", "length" or "content_filter";
            "context_full" if the context truncated the turn before the request's limit.
        model: Name of the model that the endpoint says has answered.
        prompt_tokens: Prompt tokens, including cached ones.
        cached_tokens: Cached prompt tokens.
        completion_tokens: Completion tokens, including hidden reasoning.
        cost: In the price table's currency; None where the model's price is unknown.
        seconds: From sending to the last byte, of the try that succeeded.
        tries: Requests sent until this one succeeded, itself included.
        counted: Whether the endpoint said how many tokens it used.
        calls: Native tool calls that came with the text and were dropped, because the request
            offered no tools.
        reasoning: The model's reasoning, from marks in the text or from the
            server's own field; "" if there is none.
        tool_calls: Well-formed calls of the turn, where the request offered tools.
        malformed: Calls whose JSON cannot be read, each as the model spelled it.
    """

    text: str
    finish_reason: str = "stop"
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    tries: int = 1
    counted: bool = True
    calls: int = 0
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    malformed: tuple[str, ...] = ()

    def answer(self) -> Answer:
        """Return the turn as an `Answer`."""
        return Answer(
            self.text,
            cut=is_cut(self.finish_reason),
            prompt_tokens=self.prompt_tokens,
            calls=self.calls,
            reasoning=self.reasoning,
            tool_calls=self.tool_calls,
            malformed=self.malformed,
        )


def reply_of(turn: str) -> Reply:
    """Return a turn that no server wrote, such as an oracle's, as a reply."""
    if not isinstance(turn, Answer):
        return Reply(turn)
    return Reply(
        str(turn),
        "length" if turn.cut else "stop",
        calls=turn.calls,
        reasoning=turn.reasoning,
        tool_calls=turn.tool_calls,
        malformed=turn.malformed,
    )
