"""Find out whether a chat template renders a past turn differently from the current one.

Qwen3's template omits reasoning before the last user turn, Mistral's writes the tools before it. A
row of a whole conversation then trains an earlier turn without its reasoning, or after a text that
is not its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from dataset_builders.conversation import Conversation, Message, ToolCall
from dataset_builders.errors import CertificationError, MaskError
from dataset_builders.masks.chat_templates import CALL_PROBE_TOOLS
from dataset_builders.masks.spans import Rendered, Span
from dataset_builders.tools import parse_tools


class Renderer(Protocol):
    """What is needed of `ChatRenderer`."""

    def render(self, conversation: Conversation, certify: bool = False) -> Rendered:
        """See `ChatRenderer.render`."""

    def text_until(self, conversation: Conversation, index: int) -> str:
        """See `ChatRenderer.text_until`."""

    def prompt(self, messages: Sequence[Message], tools: str = "") -> str:
        """See `ChatRenderer.prompt`."""


def _said(content: str, reasoning: str | None = None, *calls: ToolCall) -> Message:
    return Message("assistant", content, True, calls, reasoning=reasoning)


def _asked(number: int) -> Message:
    return Message("user", f"qask{number}")


# Nine letters or digits, as Mistral's templates require.
_CALLS = tuple(
    ToolCall("qfunction", f'{{"qkey": "qvalue{n}"}}', f"qcallid{n:02}") for n in range(3)
)
_RESULTS = tuple(Message("tool", f"qresult{n}", tool_call_id=f"qcallid{n:02}") for n in range(3))
_SYSTEM = Message("system", "qsystem")

PROBES: tuple[tuple[Message, ...], ...] = (
    (_asked(1), _said("qsay1"), _asked(2), _said("qsay2"), _asked(3)),
    (_SYSTEM, _asked(1), _said("qsay1"), _asked(2), _said("qsay2")),
    (
        *(_asked(1), _said("<think>\nqmuse1\n</think>\n\nqsay1")),
        *(_asked(2), _said("<think>\nqmuse2\n</think>\n\nqsay2"), _asked(3)),
    ),
    (_asked(1), _said("qsay1", "qmuse1"), _asked(2), _said("qsay2", "qmuse2"), _asked(3)),
    (
        *(_asked(1), _said("", None, _CALLS[0]), _RESULTS[0], _said("", None, _CALLS[1])),
        *(_RESULTS[1], _said("qsay1"), _asked(2), _said("", None, _CALLS[2]), _RESULTS[2]),
        _said("qsay2"),
    ),
    (_asked(1), _said("qsay1", None, _CALLS[0]), _RESULTS[0], _said("qsay2")),
    (
        *(_asked(1), _said("", "qmuse0", _CALLS[0]), _RESULTS[0]),
        *(_said("", "qmuse1", _CALLS[1]), _RESULTS[1], _said("qsay1", "qmuse2")),
        *(_asked(2), _said("", "qmuse3", _CALLS[2]), _RESULTS[2], _said("qsay2", "qmuse4")),
    ),
)
"""Conversations of several turns: plain, with a system turn, thoughts, reasoning and calls."""


def rewrites_history(renderer: Renderer) -> bool:
    """Whether a probe has a turn that a whole row shows unlike inference, see `rewritten_turns`.

    Args:
        renderer: The template.
    """
    return any(_rewrites(renderer, messages) for messages in PROBES)


def _rewrites(renderer: Renderer, messages: tuple[Message, ...]) -> bool:
    calls = any(message.tool_calls for message in messages)
    tools = parse_tools(CALL_PROBE_TOOLS) if calls else ""
    conversation = Conversation.create(messages, tools=tools)
    try:
        whole = renderer.render(conversation)
    except (CertificationError, MaskError):  # Such conversations give no row.
        return False
    return any(
        _can_end(renderer, conversation, index)
        for index in rewritten_turns(renderer, conversation, whole)
    )


def _can_end(renderer: Renderer, conversation: Conversation, index: int) -> bool:
    """Whether a row may end with a turn; some templates end no last turn."""
    try:
        renderer.render(replace(conversation, messages=conversation.messages[: index + 1]))
    except (CertificationError, MaskError):
        return False
    return True


def rewritten_turns(
    renderer: Renderer, conversation: Conversation, whole: Rendered
) -> Iterator[int]:
    """Yield the trained turns that a rendering shows unlike inference.

    A turn is as inference shows it if it stands after its own prompt and the template leaves
    nothing of it out. If a row that ends with the turn would begin with the same text, a row of
    its own would not change that.

    Args:
        renderer: The template.
        conversation: The conversation.
        whole: Its rendering.
    """
    messages = conversation.messages
    trained = (index for index, message in enumerate(messages) if message.trained)
    for index, span in zip(trained, whole.spans, strict=True):
        if index == len(messages) - 1:
            continue
        try:
            alone = renderer.text_until(conversation, index)
        except MaskError:  # Inference cannot show it at all.
            continue
        if alone.startswith(whole.text[: span.end]):
            continue
        lost = any(message == index for message, _ in whole.left_out)
        if lost or not follows_prompt(renderer, conversation, index, whole.text, span):
            yield index


def follows_prompt(
    renderer: Renderer, conversation: Conversation, index: int, text: str, span: Span
) -> bool:
    """Whether a trained turn stands after the prompt that inference generates it from.

    Args:
        renderer: The template.
        conversation: The conversation.
        index: The turn.
        text: A rendering that contains it.
        span: Its trained text there.
    """
    try:
        prompt = renderer.prompt(conversation.messages[:index], conversation.tools)
    except MaskError:
        return False
    return len(prompt) <= span.start and text.startswith(prompt)
