"""A model's answer to one request, with its usage."""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT_FULL = "context_full"
"""`finish_reason` of a turn that the end of the model's context cut."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, and what that took.

    Attributes:
        text: The turn; "" where the model said nothing, such as with a tool call alone.
        finish_reason: The endpoint's, such as "stop", "length" or "content_filter";
            "context_full" where the context's end cut the turn before the request's limit.
        model: Name of the model that the endpoint says has answered.
        prompt_tokens: Tokens read, those from the endpoint's cache included.
        cached_tokens: Tokens read from the endpoint's cache.
        completion_tokens: Tokens written, hidden reasoning included.
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
