"""A model's turn as text, with how it ended and its reasoning."""

from __future__ import annotations

from dataset_builders.reasoning import split_reasoning
from dataset_builders.tools import ToolCall


class Answer(str):
    """A turn's text and how it ended; a plain string is a turn that ended normally.

    Attributes:
        cut: Whether it was truncated at the token limit.
        refused: Why the server rejected the request, as "<exit reason>: <message>"; "" if it did
            not. The text is then "" and not a turn of the model.
        prompt_tokens: Tokens of the prompt as counted by the server; 0 if unknown.
        calls: Native tool calls next to the text, which are dropped: the dialogue offers no tools.
        reasoning: The model's reasoning without the marks; "" if there is none.
        tool_calls: Well-formed calls of the turn, where the dialogue offers tools.
        malformed: Calls whose JSON cannot be read, each as the model spelled it.
    """

    cut: bool
    refused: str
    prompt_tokens: int
    calls: int
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    malformed: tuple[str, ...]

    def __new__(
        cls,
        text: str = "",
        *,
        cut: bool = False,
        refused: str = "",
        prompt_tokens: int = 0,
        calls: int = 0,
        reasoning: str = "",
        tool_calls: tuple[ToolCall, ...] = (),
        malformed: tuple[str, ...] = (),
    ) -> Answer:
        """Make one; reasoning within the text stays there, see `read_answer`."""
        answer = super().__new__(cls, text)
        answer.cut, answer.refused, answer.prompt_tokens = cut, refused, prompt_tokens
        answer.calls = calls
        answer.reasoning = reasoning
        answer.tool_calls, answer.malformed = tool_calls, malformed
        return answer


def read_answer(text: str, reasoning: str = "", *, opened: bool = False) -> Answer:
    """Separate the reasoning from a turn; see `reasoning.split_reasoning`.

    Args:
        text: The turn as the model wrote it; the end state of an `Answer` is kept.
        reasoning: Thoughts that a server has already separated.
        opened: Whether the prompt ended within reasoning, so that the turn begins there.
    """
    answer = text if isinstance(text, Answer) else Answer(text)
    said, found = split_reasoning(str(text), opened=opened)
    thoughts = "\n\n".join(filter(None, (answer.reasoning, reasoning, found)))
    return replace_text(answer, said, thoughts)


def replace_text(answer: Answer, text: str, reasoning: str | None = None) -> Answer:
    """Return the answer with another text, and other reasoning if given."""
    return Answer(
        text,
        cut=answer.cut,
        refused=answer.refused,
        prompt_tokens=answer.prompt_tokens,
        calls=answer.calls,
        reasoning=answer.reasoning if reasoning is None else reasoning,
        tool_calls=answer.tool_calls,
        malformed=answer.malformed,
    )


def is_cut(text: str) -> bool:
    """Whether a turn was truncated at the token limit."""
    return isinstance(text, Answer) and text.cut


def dropped_calls(text: str | None) -> int:
    """Return the number of native tool calls that came with a turn and are dropped."""
    return text.calls if isinstance(text, Answer) else 0


def refusal(text: str | None) -> str:
    """Return why the server rejected a request; "" if it did not."""
    return text.refused if isinstance(text, Answer) else ""
