"""Apply the length policy to an encoded row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.coding import Coded
from dataset_builders.encoding.lengths import LengthPolicy, keep_latest, shorten, split
from dataset_builders.encoding.token_rows import TokenRow, label_of
from dataset_builders.errors import DataError

Outcome = Literal["whole", "split", "shortened", "truncated", "too_long", "no_trained_token_left"]
"""What became of a row; the last two give none and are reasons to drop it."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A row after the length policy.

    Attributes:
        rows: None, one, or several where it was split.
        outcome: What became of it.
        turns_removed: Trained turns that the rows leave out.
        detail: Its length and the longest allowed, for messages.
    """

    rows: list[Coded]
    outcome: Outcome
    turns_removed: int = 0
    detail: str = ""


class Fitter:
    """Makes rows fit.

    Args:
        max_length: Longest row in tokens.
        policy: See `Encoder`.
        measure: Encodes a part of a conversation and counts its tokens; None if the template
            rejects it.
    """

    def __init__(
        self,
        max_length: int,
        policy: LengthPolicy,
        measure: Callable[[Conversation], tuple[Coded, int] | None],
    ) -> None:
        self._max_length = max_length
        self._policy = policy
        self._measure = measure

    def fit(self, coded: Coded, conversation: Conversation, by_turn: bool = False) -> Fitted:
        """Return the rows that a row becomes.

        Args:
            coded: The row.
            conversation: The messages that it shows.
            by_turn: Whether it is one of several rows of a conversation, for its last turns.

        Raises:
            DataError: It is too long, and the policy is "raise".
        """
        length = len(coded.row.input_ids)
        if length <= self._max_length:
            return Fitted([coded], "whole")
        detail = f"found {length} tokens, expected at most {self._max_length}"
        if self._policy == "raise":
            raise DataError(f"{label_of(conversation)}: {detail}")
        if self._policy == "truncate":
            return self._truncate(coded, detail)
        if conversation.options is not None and (by_turn or conversation.num_trained == 1):
            opening = self._policy == "shorten"
            if self._policy != "drop" and (
                found := keep_latest(conversation, self._max_length, self._measure, opening)
            ):
                return Fitted([found[0]], "shortened", found[1], detail)
            return Fitted([], "too_long", conversation.num_trained, detail)
        if self._policy == "split":
            rows, removed = split(conversation, coded.ends, self._max_length, self._measure)
            if rows:
                return Fitted(rows, "split", removed, detail)
        elif self._policy == "shorten" and (
            found := shorten(conversation, coded.ends, self._max_length, self._measure)
        ):
            return Fitted([found[0]], "shortened", found[1], detail)
        return Fitted([], "too_long", conversation.num_trained, detail)

    def _truncate(self, coded: Coded, detail: str) -> Fitted:
        end = self._max_length
        row = TokenRow(coded.row.input_ids[:end], coded.row.labels[:end])
        if not row.num_trained:
            return Fitted([], "no_trained_token_left", detail=detail)
        return Fitted([replace(coded, row=row)], "truncated", detail=detail)
