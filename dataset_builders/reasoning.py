"""Separate the reasoning of a model's turn from its answer.

Reasoning models write their reasoning into the turn, between marks that differ between model
families. A draft of an action or program in the reasoning is not part of the answer, so this is the
one place that removes reasoning, before a parser, judge or transcript reads the turn.

Known marks: tags such as `<think>` (Qwen3, DeepSeek-R1, GLM-4.5, EXAONE 4, `<seed:think>`),
`[THINK]` (Mistral), `<|START_THINKING|>` (Command-A), `<|begin_of_thought|>`, `◁think▷` (Kimi),
the channels of gpt-oss (all but `final` are thoughts) and of Gemma 4 (`<|channel>thought`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TAG = r"(?:seed:|mm:)?think(?:ing)?|thoughts?|reasoning"
OPENING_MARK = (
    rf"<(?:{_TAG})>|\[THINK\]|<\|START_THINKING\|>|<\|begin_of_thought\|>|◁think▷|"
    r"<\|channel>(?:thought|analysis)\b"
)
CLOSING_MARK = (
    rf"</(?:{_TAG})>|\[/THINK\]|<\|END_THINKING\|>|<\|end_of_thought\|>|◁/think▷|<channel\|>"
)
# In the middle of a line it is a mention of the mark: `use the <think> tag`.
_OPENING = re.compile(rf"^[^\S\n]*(?:{OPENING_MARK})", re.IGNORECASE | re.MULTILINE)
_CLOSING = re.compile(CLOSING_MARK, re.IGNORECASE)
_MARK = re.compile(rf"{OPENING_MARK}|{CLOSING_MARK}", re.IGNORECASE)
_OPENS_PROMPT = re.compile(rf"(?:{OPENING_MARK})\s*\Z", re.IGNORECASE)

_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?P<name>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<text>.*?)(?=<\|(?:end|start|return|call|channel)\|>|\Z)",
    re.DOTALL,
)
_CHANNELS_WITHOUT_TOKENS = re.compile(r"analysis(?P<thought>.+?)assistantfinal", re.DOTALL)
_FINAL = "final"

THOUGHT_LABEL = re.compile(r"^\s*(?:think|thought|reason(?:ing)?)\s*\d*\s*:\s*", re.IGNORECASE)
"""Label of a thought at the start of a ReAct turn, such as `Thought 1: `."""

# Marks around the answer itself, in families that mark thoughts.
_FRAME = re.compile(
    r"<\|(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution|end|return)\|>"
)


def split_reasoning(text: str, *, opened: bool = False) -> tuple[str, str]:
    """Remove the reasoning from a turn.

    Args:
        text: The turn as the model wrote it.
        opened: Whether the prompt ended within a thought (`opens_thought`), so that the turn begins
            inside it.

    Returns:
        The answer, and the reasoning without its marks. If there was reasoning, the answer
        has no blanks around it. Reasoning that is never closed makes the turn empty: the
        model reached no answer. A text that closes reasoning it did not open is reasoning up to
        that point: some templates open it in the prompt.
    """
    text = with_opening(text, opened)
    thoughts: list[str] = []
    said, left = text, ""
    # A mark may be at the beginning only after the text before it has been removed.
    while said != left:
        left = said
        found, said = _split(left)
        said = left if said == left else said.strip()
        thoughts += found
    return said, "\n\n".join(filter(None, thoughts))


def with_opening(text: str, opened: bool) -> str:
    """Return a turn with the opening mark of a thought that its prompt has opened."""
    return f"<think>{text}" if opened and not _OPENING.match(text.lstrip()) else text


def spoken(turn: str) -> str:
    """Return a turn without its reasoning; unchanged if it has no reasoning mark."""
    return split_reasoning(turn)[0] if _has_marks(turn) else turn


def begins_with_thought(turn: str) -> bool:
    """Whether a turn begins with the mark that opens a thought."""
    return _OPENING.match(turn.lstrip()) is not None


def with_tags(said: str, reasoning: str | None) -> str:
    """Format reasoning and answer as one text, in the layout of Qwen3's template.

    `split_reasoning` reads it.
    """
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{said}" if reasoning else said


def said_from(turn: str) -> int:
    """Return the index of the first character after a turn's last thought; 0 if it has none."""
    said = spoken(turn)
    if said == turn:
        return 0
    if not said:
        return len(turn)
    ends = [mark.end() for mark in _CLOSING.finditer(turn)]
    return ends[-1] if ends else max(turn.rfind(said), 0)


def thought_spans(turn: str) -> list[tuple[int, int]]:
    """Return where a turn's thoughts stand, marks included, in order.

    Thoughts in channels (gpt-oss) are not listed. One that is never closed reaches to the end; a
    closing mark before any opening one closes a thought that the prompt has opened.
    """
    spans: list[tuple[int, int]] = []
    position = 0
    stray = _last_closing(turn)
    if stray is not None and _OPENING.search(turn, 0, stray.start()) is None:
        spans, position = [(0, stray.end())], stray.end()
    while opening := _OPENING.search(turn, position):
        closing = _CLOSING.search(turn, opening.end())
        position = closing.end() if closing else len(turn)
        spans.append((opening.start(), position))
    return spans


def opens_thought(prompt: str) -> bool:
    """Whether a prompt ends with the mark that opens a thought."""
    return _OPENS_PROMPT.search(prompt) is not None


def mark_tokens(tokens: Iterable[str]) -> set[str]:
    """Return the tokens that mark thoughts: without them a decoded text hides where one ends.

    Args:
        tokens: Special tokens, which a decoder leaves out by default.
    """
    known = set(tokens)
    marks = {token for token in known if _MARK.fullmatch(token)}
    marks |= known & {"<|channel>", "<channel|>"}
    if "<|channel|>" in known:
        marks |= known & {"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>"}
    return marks


def _has_marks(text: str) -> bool:
    return (
        _MARK.search(text) is not None
        or "<|channel|>" in text
        or _CHANNELS_WITHOUT_TOKENS.match(text) is not None
    )


def _split(text: str) -> tuple[list[str], str]:
    if "<|channel|>" in text:
        return _split_channels(text)
    if found := _CHANNELS_WITHOUT_TOKENS.match(text):
        return [found["thought"].strip()], text[found.end() :]
    if _MARK.search(text) is None:
        return [], text
    thoughts: list[str] = []
    said: list[str] = []
    while opening := _OPENING.search(text):
        before, rest = text[: opening.start()], text[opening.end() :]
        if stray := _last_closing(before):  # Closes a thought that the prompt has opened.
            thoughts.append(before[: stray.start()].strip())
            said, before = [], before[stray.end() :]
        closing = _CLOSING.search(rest)
        if closing is None:
            return [*thoughts, rest.strip()], ""
        said.append(before)
        thoughts.append(rest[: closing.start()].strip())
        text = rest[closing.end() :]
    if stray := _last_closing(text):
        thoughts.append("".join((*said, text[: stray.start()])).strip())
        said, text = [], text[stray.end() :]
    return list(filter(None, thoughts)), _FRAME.sub("", "".join((*said, text)))


def _last_closing(text: str) -> re.Match[str] | None:
    """Return the last mark that closes a thought which the text does not open."""
    found, depth = None, 0
    for mark in _MARK.finditer(text):
        if _CLOSING.fullmatch(mark[0]) is None:
            depth += 1
        elif depth:
            depth -= 1
        else:
            found = mark
    return found


def _split_channels(text: str) -> tuple[list[str], str]:
    """Split channels of gpt-oss's format: only `final` is shown to the user."""
    thoughts: list[str] = []
    said: list[str] = []
    for message in _CHANNEL.finditer(text):
        words = message["text"].strip()
        (said if message["name"] == _FINAL and not message["to"].strip() else thoughts).append(
            words
        )
    return list(filter(None, thoughts)), "\n\n".join(said)
