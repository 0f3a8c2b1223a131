"""A model's turn as text, with how it ended."""

from __future__ import annotations


class Answer(str):
    """Text that knows how it ended; a plain string is a turn that ended as it should.

    Attributes:
        cut: Whether it was cut at the limit of tokens.
        refused: Why the server refused the request, as "<exit reason>: <message>"; "" where
            it did not. The text is "" then, and it is no turn of the model.
        prompt_tokens: Tokens of the prompt as the server counts them; 0 if it does not say.
        calls: Native tool calls beside the text, which are dropped.
    """

    cut: bool
    refused: str
    prompt_tokens: int
    calls: int

    def __new__(
        cls,
        text: str = "",
        *,
        cut: bool = False,
        refused: str = "",
        prompt_tokens: int = 0,
        calls: int = 0,
    ) -> Answer:
        """Make one."""
        answer = super().__new__(cls, text)
        answer.cut, answer.refused, answer.prompt_tokens = cut, refused, prompt_tokens
        answer.calls = calls
        return answer


def is_cut(text: str) -> bool:
    """Whether a turn was cut at the limit of tokens."""
    return isinstance(text, Answer) and text.cut


def dropped_calls(text: str | None) -> int:
    """Native tool calls that came with a turn and are dropped."""
    return text.calls if isinstance(text, Answer) else 0


def refusal(text: str | None) -> str:
    """Why the server refused a request; "" where it did not."""
    return text.refused if isinstance(text, Answer) else ""
