"""A model's reply to one request, with its usage."""

from __future__ import annotations

from dataclasses import dataclass

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
        calls: Native tool calls that came with the text and were dropped.
        reasoning: The model's reasoning, from marks in the text or from the
            server's own field; "" if there is none.
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
