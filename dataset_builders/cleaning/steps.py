"""Cleaning steps that make shared chats fit for training.

Every step has a name, which is its setting and its counter in the report. A step that
repairs turns is counted under `changed`, in turns; one that refuses conversations under
`dropped`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from pydantic import Field, TypeAdapter

from dataset_builders.cleaning.agent_faults import Step
from dataset_builders.cleaning.language import LanguageFilter
from dataset_builders.cleaning.page_text import (
    clean_characters,
    is_failure,
    page_markup,
    remove_page_text,
)
from dataset_builders.readers.building import RecordDroppedError, Turn
from dataset_builders.settings import settings

_SHARE_BANNER = re.compile(r"\*?This (?:chat )?conversation is shared from\b.*", re.DOTALL)


@settings
class Cleaning:
    """Cleaning steps that make shared chats fit for training."""

    remove_share_banners: bool = Field(
        default=True, description="Remove system turns that only name the sharing site."
    )
    clean_characters: bool = Field(
        default=True, description="Remove control characters and zero-width spaces."
    )
    remove_page_text: bool = Field(
        default=True, description="Remove captions of the chat page, such as `2 / 2`."
    )
    remove_failed_answers: bool = Field(
        default=True, description="Remove answers that are only an error message."
    )
    remove_empty_turns: bool = Field(
        default=True, description="Remove turns without a visible character."
    )
    join_user_turns: bool = Field(default=True, description="Join consecutive user turns.")
    strip_leading_assistant: bool = Field(
        default=True, description="Remove answers before the first question."
    )
    strip_trailing_user: bool = Field(
        default=True, description="Remove questions after the last answer."
    )
    drop_page_markup: bool = Field(
        default=True, description="Drop conversations with the chat page's own markup in them."
    )
    language: str | None = Field(
        default="en", description="Language to keep, as ISO 639-1 code; null: any."
    )
    drop_duplicates: bool = Field(
        default=True, description="Drop exact duplicates of earlier conversations."
    )
    near_duplicates: float | None = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Similarity (Jaccard, of word 5-grams) at which a conversation is dropped as "
        "a near duplicate; null: off.",
    )

    @classmethod
    def none(cls) -> Cleaning:
        """Return settings with every step off: conversations are kept unchanged or rejected."""
        settings: dict[str, Any] = dict.fromkeys((field.name for field in fields(cls)), False)
        return cls(**{**settings, "language": None, "near_duplicates": None})


_CHAT_STEPS: TypeAdapter[Cleaning | None] = TypeAdapter(Cleaning | None)
_AGENT_STEPS = TypeAdapter(tuple[Step, ...])


def validate_steps(clean: Any, _handler: Any) -> Any:
    """Validate a source's `clean` by the kind of value, so that an error is about one kind only."""
    if isinstance(clean, str | list | tuple):
        return _AGENT_STEPS.validate_python((clean,) if isinstance(clean, str) else clean)
    return _CHAT_STEPS.validate_python(Cleaning.none() if clean is False else clean)


def remove_share_banners(turns: list[Turn]) -> list[Turn]:
    """Remove system turns that only name the site where a conversation was shared.

    All 41 system turns of the public ShareGPT file are of this kind.
    """
    return [
        turn
        for turn in turns
        if turn.role != "system" or not _SHARE_BANNER.fullmatch(turn.content.strip())
    ]


def _clean_characters(turns: list[Turn]) -> list[Turn]:
    return [_with(turn, clean_characters(turn.content)) for turn in turns]


def _remove_page_text(turns: list[Turn]) -> list[Turn]:
    return [
        _with(turn, remove_page_text(turn.content)) if turn.role == "user" else turn
        for turn in turns
    ]


def remove_failed_answers(turns: list[Turn]) -> list[Turn]:
    """Remove assistant turns that are only an error message of the chat service."""
    return [turn for turn in turns if turn.role != "assistant" or not is_failure(turn.content)]


def remove_empty_turns(turns: list[Turn]) -> list[Turn]:
    """Remove turns without a visible character.

    What an empty answer leaves behind are two questions in a row, to be joined. Between
    two answers an empty question leaves nothing that could be repaired.
    """
    return [turn for turn in turns if turn.content and not turn.content.isspace()]


def join_user_turns(turns: list[Turn]) -> list[Turn]:
    r"""Join consecutive user turns with a blank line; a repeated question is kept once.

    In the public ShareGPT file the first of them was not answered, and the answer is to all:
    "Please continue" repeated, a correction, a second part. Two answers in a row are left
    as they are, and the conversation is dropped: the second may continue the first or be
    another version of it, and the public file's (11 runs) are chats whose every turn, the
    user's too, is marked as the assistant's. FastChat drops both kinds.
    """
    joined: list[Turn] = []
    for before, turn in zip([None, *turns], turns, strict=False):
        if before is None or before.role != "user" or turn.role != "user":
            joined.append(turn)
        elif turn.content.strip() != before.content.strip():
            joined[-1] = _with(joined[-1], f"{joined[-1].content}\n\n{turn.content}")
    return joined


def strip_leading_assistant(turns: list[Turn]) -> list[Turn]:
    """Remove assistant turns before the first user turn."""
    start = 1 if turns and turns[0].role == "system" else 0
    first = start
    while first < len(turns) and turns[first].role == "assistant":
        first += 1
    return turns[:start] + turns[first:]


def strip_trailing_user(turns: list[Turn]) -> list[Turn]:
    """Remove user turns after the last assistant turn."""
    end = len(turns)
    while end and turns[end - 1].role == "user":
        end -= 1
    return turns[:end]


STEPS: dict[str, Callable[[list[Turn]], list[Turn]]] = {
    "remove_share_banners": remove_share_banners,
    "clean_characters": _clean_characters,
    "remove_page_text": _remove_page_text,
    "remove_failed_answers": remove_failed_answers,
    "remove_empty_turns": remove_empty_turns,
    "join_user_turns": join_user_turns,
    "strip_leading_assistant": strip_leading_assistant,
    "strip_trailing_user": strip_trailing_user,
}
"""Repairs of turns by name, in the order in which they are made."""


class Cleaner:
    """Applies the cleaning steps to one source; remembers what it has seen.

    Args:
        cleaning: The steps to take.

    Raises:
        ConfigError: The language or the similarity is invalid.
    """

    def __init__(self, cleaning: Cleaning) -> None:
        # Needs numpy, which reading a recipe does without.
        from dataset_builders.cleaning.duplicates import ExactDuplicates, NearDuplicates

        self._cleaning = cleaning
        self._repairs = [name for name in STEPS if getattr(cleaning, name)]
        self._language = LanguageFilter(cleaning.language) if cleaning.language else None
        self._exact = ExactDuplicates() if cleaning.drop_duplicates else None
        near = cleaning.near_duplicates
        self._near = None if near is None else NearDuplicates(near)

    def repair(self, turns: list[Turn]) -> tuple[list[Turn], dict[str, int]]:
        """Repair the turns of a conversation.

        Returns:
            The turns, and the number of turns that each step removed or altered.
        """
        changes: dict[str, int] = {}
        for name in self._repairs:
            before = turns
            turns = STEPS[name](turns)
            changes[name] = _count_changes(before, turns)
        return turns, changes

    def check(self, turns: Sequence[Turn], where: str) -> None:
        """Accept or reject a conversation; later ones are compared to an accepted one.

        Args:
            turns: Its turns, repaired.
            where: Its record.

        Raises:
            RecordDroppedError: `page_markup`, `language_..`, `duplicate`, `near_duplicate`.
        """
        if self._cleaning.drop_page_markup:
            for turn in turns:
                if markup := page_markup(turn.content):
                    raise RecordDroppedError(
                        "page_markup",
                        f"turn {turn.position}: found {markup!r:.60}, markup of a chat page, "
                        "expected text; clean: {drop_page_markup: false} keeps it",
                    )
        if self._language is not None:
            self._language.check(turn.content for turn in turns)
        if self._exact is not None:
            self._exact.check(((turn.role, turn.content) for turn in turns), where)
        if self._near is not None:
            answers = "\n".join(turn.content for turn in turns if turn.role == "assistant")
            self._near.check("\n".join(turn.content for turn in turns), where, answers)


def _with(turn: Turn, content: str) -> Turn:
    return turn if content == turn.content else turn._replace(content=content)


def _count_changes(before: list[Turn], after: list[Turn]) -> int:
    if len(before) != len(after):
        return len(before) - len(after)
    return sum(old is not new for old, new in zip(before, after, strict=True))
