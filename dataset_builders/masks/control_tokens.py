"""Escape control tokens that occur in the content of messages.

A user may quote `<|im_end|>`, and a tool may return it. A tokenizer treats it as the token itself
wherever it occurs, so data could end a turn and open another. Before rendering, each such spelling
is replaced by a private-use character; in the rendering, that character shows where the spelling
belongs.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import (
    CALL_PROBE,
    CALL_PROBE_TOOLS,
    ChatTemplate,
    Row,
)
from dataset_builders.masks.spans import Span, unused_characters, words

THOUGHTS = ("<think>", "</think>", "[THINK]", "[/THINK]")
"""Tokens around a thought. They do not open a turn, and an assistant writes them itself."""


@dataclass(frozen=True, slots=True)
class EscapedTokens:
    """A conversation with private-use characters in place of the control tokens it contains.

    Attributes:
        rows: Its messages.
        tools: Its function schemas.
        spellings: The token that each character stands for.
    """

    rows: list[Row]
    tools: list[Any] | None
    spellings: dict[str, str]

    def lift(self, text: str) -> RestoredText:
        """Restore the original spellings in a rendering."""
        pieces: list[str] = []
        places: list[int] = []
        literals: list[Span] = []
        length = end = 0
        for match in re.finditer("[" + "".join(self.spellings) + "]", text):
            spelling = self.spellings[match[0]]
            pieces += text[end : match.start()], spelling
            length += match.start() - end
            literals.append(Span(length, length + len(spelling)))
            places.append(match.start())
            length, end = length + len(spelling), match.end()
        return RestoredText("".join((*pieces, text[end:])), tuple(literals), tuple(places))


@dataclass(frozen=True, slots=True)
class RestoredText:
    """A rendering with the original spellings restored.

    Attributes:
        text: The rendering.
        literals: Ranges of the spellings in it.
        places: Ranges of their characters in the escaped rendering.
    """

    text: str
    literals: tuple[Span, ...]
    places: tuple[int, ...]

    def move(self, span: Span) -> Span:
        """Convert a range of the escaped rendering to a range of `text`."""
        return Span(self._move(span.start), self._move(span.end))

    def _move(self, position: int) -> int:
        before = bisect_left(self.places, position)
        if not before:
            return position
        return self.literals[before - 1].end + position - self.places[before - 1] - 1


class ControlTokens:
    """The tokens of a tokenizer that message content must not contain.

    These are the tokens that it calls special, those that end a turn, those around a
    thought, and those added tokens, special or not, that the template writes around turns,
    calls and results. Around thoughts and calls an assistant writes them itself.

    Attributes:
        tokens: All of them.
        foreign: Those that an assistant's content must not contain either.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        template: Its template.
        end_tokens: Tokens that end an assistant turn.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, end_tokens: Iterable[str]) -> None:
        added = tokenizer.added_tokens_decoder.values()
        around = _around_turns(template)
        plain = {token.content for token in added if not token.special} - set(THOUGHTS)
        tokens = {token.content for token in added if token.special}
        tokens |= {token for token in plain if token in around and not token.isalnum()}
        tokens |= {*tokenizer.all_special_tokens, *end_tokens}
        # A thought is the assistant's own, and so is a call that it writes out as text:
        # their marks have to stay tokens there.
        calls = _around_calls(template)
        own = {token for token in plain - tokens if token in calls and _is_mark(token)}
        own |= set(THOUGHTS)
        tokens |= own & {token.content for token in added}
        self.tokens = frozenset(token for token in tokens if token.strip())
        self.foreign = self.tokens - own
        self._anyone, self._assistant = _pattern(self.tokens), _pattern(self.foreign)

    def disguise(
        self, rows: Sequence[Row], tools: list[Any] | None, text: str
    ) -> EscapedTokens | None:
        """Escape the control tokens in a conversation; None if it contains none.

        Args:
            rows: The messages.
            tools: The function schemas.
            text: Their rendering.

        Raises:
            MaskError: All private-use characters are used.
        """
        if not self._spelt(rows, tools):
            return None
        everything = "".join((text, *words(list(rows)), *words(tools or [])))
        found = sorted(set(self._anyone.findall(everything)))
        try:
            stand_ins: dict[str, str] = dict(
                zip(found, unused_characters(everything, len(found)), strict=True)
            )
        except MaskError as error:
            raise MaskError(str(error), "control_token") from error

        def replace(match: re.Match[str]) -> str:
            return stand_ins[str(match[0])]

        changed = [
            {
                key: value if key == "role" else _map(value, self._for(row), replace)
                for key, value in row.items()
            }
            for row in rows
        ]
        return EscapedTokens(
            changed,
            _map(tools, self._anyone, replace) if tools else tools,
            {character: token for token, character in stand_ins.items()},
        )

    def _for(self, row: Row) -> re.Pattern[str]:
        return self._assistant if row["role"] == "assistant" else self._anyone

    def _spelt(self, rows: Sequence[Row], tools: list[Any] | None) -> bool:
        for row in rows:
            search = self._for(row).search
            if search(row["content"]):
                return True
            # Beside role and content: calls and the ids of their results.
            if len(row) > 2 and any(
                search(text) for key, value in row.items() if key != "role" for text in words(value)
            ):
                return True
        return bool(tools) and any(map(self._anyone.search, words(tools)))


def _pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)))


def _map(value: Any, pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> Any:
    """Replace the tokens in all strings of a JSON value, keys included."""
    if isinstance(value, str):
        return pattern.sub(replace, value)
    if isinstance(value, dict):
        return {
            pattern.sub(replace, key): _map(item, pattern, replace) for key, item in value.items()
        }
    return [_map(item, pattern, replace) for item in value] if isinstance(value, list) else value


def _around_turns(template: ChatTemplate) -> str:
    rows: list[Row] = [{"role": role, "content": "q"} for role in ("user", "assistant", "user")]
    return template.text(rows, prompt=True)


def _around_calls(template: ChatTemplate) -> str:
    """Render a call, its result and the tools, if the template supports them."""
    try:
        return template.text(template.rows(CALL_PROBE), CALL_PROBE_TOOLS)
    except MaskError:
        return ""


def _is_mark(token: str) -> bool:
    """Whether a token is more than a word or the punctuation of JSON."""
    return not token.isalnum() and any(map(str.isalnum, token))
