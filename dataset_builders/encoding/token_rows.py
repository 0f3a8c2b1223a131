"""Token rows, and the report on the conversations they were built from.

Labels hold the token's own id where the loss covers it and -100 elsewhere, the format that Axolotl
and TRL use directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataset_builders.conversation import Conversation

IGNORE_INDEX = -100
"""Label of a token that the loss does not cover (PyTorch's cross-entropy default)."""

Ints = npt.NDArray[np.int32]

_SAMPLES = 3

LENGTH_STEP = 64
"""Bin width, in tokens, of the counts of conversation lengths."""

KEEP_SHARE = 0.95
"""Fraction of the conversations that a recommended max_length would keep whole."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One training example.

    Attributes:
        input_ids: (T,) int32, token ids.
        labels: (T,) int32, the id where trained, -100 elsewhere.
    """

    input_ids: Ints
    labels: Ints

    @property
    def num_trained(self) -> int:
        """Number of tokens that the loss covers."""
        return int(np.count_nonzero(self.labels != IGNORE_INDEX))

    def has_turn_behind(self, prompt: Ints, masked: bool = False) -> bool:
        """Whether the row begins with a prompt's ids, followed by a trained turn.

        Args:
            prompt: (P,) int32.
            masked: Whether the turn may begin with reasoning that is not trained.
        """
        end = len(prompt)
        return (
            0 < end < len(self.input_ids)
            and self.labels[end - 1] == IGNORE_INDEX
            and (masked or self.labels[end] != IGNORE_INDEX)
            and np.array_equal(self.input_ids[:end], prompt)
        )


class Origin(NamedTuple):
    """Origin of a row: fields of `Conversation`, and the number of its piece.

    Attributes:
        id: Identifier within the source.
        source: Name of the source.
        task: Task within the source, or "".
        model: Name of the model that wrote the assistant's turns, or "".
        where: The record it was read from, or "".
        entry: Number of the source within its side of a mix, from 0.
        part: 0, or from 1 on the number of the row where the conversation gives several: pieces of
            one that was too long, or rows by turn.
    """

    id: str
    source: str
    task: str
    model: str
    where: str
    entry: int
    part: int

    @classmethod
    def of(cls, conversation: Conversation, part: int = 0) -> Origin:
        """Return the origin of a conversation's row."""
        return cls(
            conversation.id,
            conversation.source,
            conversation.task,
            conversation.model,
            conversation.where,
            conversation.entry,
            part,
        )


@dataclass
class TokenReport:
    """Counts of kept and dropped conversations and of their tokens.

    `read == kept + sum(dropped.values())` counts conversations, and
    `rows == kept - split + pieces - by_turn + turn_rows` rows: a conversation gives one row,
    unless it was too long and split, or its turns need rows of their own.
    Lengths row by row are in the index that `encode_dataset` returns.

    Attributes:
        read: Conversations seen.
        kept: Conversations of which at least one row was written.
        rows: Rows written.
        tokens: Tokens in these rows.
        trained_tokens: Those of them that the loss covers.
        split: Conversations kept that were too long and were split at turns.
        pieces: Rows that these gave.
        by_turn: Conversations kept of which rows were made turn by turn (`rows`), since one row
            would show turns unlike inference.
        turn_rows: Rows that these gave.
        turns_refused: Trained turns of these that the chat template rejects at the end of a row.
        history_cut: Rows whose history was cut by `keep_last_turns`.
        reasoning_masked: Trained turns of rows whose reasoning is context without loss.
        shortened: Conversations kept whose oldest turns after the instruction went; of those made
            turn by turn, rows.
        turns_removed: Trained turns that splitting and shortening left out of
            conversations kept, since they did not fit.
        truncated: Rows whose end was cut off (policy "truncate").
        control_tokens: Rows in which a conversation's own words spell a control token;
            they were encoded as plain characters.
        certified: Conversations whose trained turns were located in two ways that agree.
        off_prompt: Trained turns of the certified conversations before which the ids are
            not those of the prompt that generation would start from.
        thoughts_left_out: Trained turns of the conversations kept whose reasoning the chat
            template leaves out, so that it is not trained.
        words_left_out: Trained turns of which it leaves out the words beside a call.
        reasoning_as_text: Turns of the conversations kept whose reasoning was written into
            the content as `<think>` text, since the template reads none.
        by_reference: Rows that the fast engine left to the reference tokenizer.
        engine: The engine that encoded: "tiktoken" or "huggingface", or "" before use.
        engine_reason: Why it is not the fast one, or "".
        trained_turns: Trained turns of the conversations that could be encoded.
        lengths: Number of these by their whole length in tokens, rounded up to a multiple of
            `LENGTH_STEP`, whatever the policy made of them.
        dropped: Number of conversations left out, by reason.
        samples: For each reason, and for what is left out of turns, the first few as
            "source/id: detail".
    """

    read: int = 0
    kept: int = 0
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    split: int = 0
    pieces: int = 0
    by_turn: int = 0
    turn_rows: int = 0
    turns_refused: int = 0
    history_cut: int = 0
    reasoning_masked: int = 0
    shortened: int = 0
    turns_removed: int = 0
    truncated: int = 0
    control_tokens: int = 0
    certified: int = 0
    off_prompt: int = 0
    thoughts_left_out: int = 0
    words_left_out: int = 0
    reasoning_as_text: int = 0
    by_reference: int = 0
    engine: str = ""
    engine_reason: str = ""
    trained_turns: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, conversation: Conversation, detail: str) -> None:
        """Count a conversation that is dropped."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._sample(reason, conversation, detail)

    def leave_out(self, conversation: Conversation, left_out: Iterable[tuple[int, str]]) -> None:
        """Count parts of trained turns that the template omits, see `Rendered.left_out`."""
        for index, kind in left_out:
            message = conversation.messages[index]
            name = "thoughts_left_out" if kind == "reasoning" else "words_left_out"
            setattr(self, name, getattr(self, name) + 1)
            said = (message.reasoning if kind == "reasoning" else None) or message.content
            self._sample(name, conversation, f"message {index}: {said.strip()[:60]!r}")

    def lose(self, reason: str, conversation: Conversation, turns: int, detail: str) -> None:
        """Count trained turns of a conversation that is kept, but in no row."""
        name = "turns_refused" if reason == "turns_refused" else "turns_removed"
        setattr(self, name, getattr(self, name) + turns)
        self._sample(reason, conversation, detail)

    def _sample(self, reason: str, conversation: Conversation, detail: str) -> None:
        samples = self.samples.setdefault(reason, [])
        if len(samples) < _SAMPLES:
            samples.append(f"{label_of(conversation)}: {detail}")

    def count_length(self, tokens: int, times: int = 1) -> None:
        """Count conversations by their whole length."""
        step = -(-tokens // LENGTH_STEP) * LENGTH_STEP
        self.lengths[step] = self.lengths.get(step, 0) + times

    def add(self, other: TokenReport) -> None:
        """Add the counts of later conversations."""
        for item in fields(self):
            value = getattr(other, item.name)
            if isinstance(value, int):
                setattr(self, item.name, getattr(self, item.name) + value)
        self.engine = other.engine or self.engine
        self.engine_reason = other.engine_reason or self.engine_reason
        for length, number in other.lengths.items():
            self.count_length(length, number)
        for reason, number in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number
        for reason, found in other.samples.items():
            samples = self.samples.setdefault(reason, [])
            samples += found[: _SAMPLES - len(samples)]

    def summary(self) -> str:
        """Return the report as one readable line."""
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        line = f"{self.kept} of {self.read} conversations"
        if self.rows != self.kept:
            line += f", {self.rows} rows"
        line += f", {self.tokens} tokens, {share:.1%} trained"
        if self.by_turn:
            line += f", {self.by_turn} conversations as {self.turn_rows} rows by turn"
            line += " (an example is a row)"
        if self.history_cut:
            line += f", {self.history_cut} rows with a cut history"
        if self.turns_refused:
            line += f", {self.turns_refused} turns refused by the template"
        if self.reasoning_masked:
            line += f", reasoning of {self.reasoning_masked} turns masked"
        if self.split:
            line += f", {self.split} split into {self.pieces}"
        for name in ("shortened", "turns_removed", "truncated"):
            if number := getattr(self, name):
                line += f", {number} {name.replace('_', ' ')}"
        if self.control_tokens:
            line += f", {self.control_tokens} with control tokens as text"
        if self.off_prompt:
            line += f", {self.off_prompt} turns off their prompt"
            line += f" (of {self.certified} conversations certified)"
        if self.thoughts_left_out:
            line += f", {self.thoughts_left_out} turns without their reasoning"
        if self.words_left_out:
            line += f", {self.words_left_out} turns without the text that accompanies a call"
        if self.reasoning_as_text:
            line += f", reasoning of {self.reasoning_as_text} turns as <think> text"
        if self.dropped:
            line += ", dropped " + ", ".join(f"{n} {reason}" for reason, n in self.dropped.items())
        return line


def length_for(lengths: Mapping[Any, int], share: float = KEEP_SHARE) -> int | None:
    """Return the smallest max_length that keeps a share of the conversations whole.

    Args:
        lengths: As in `TokenReport`; keys may be text, as JSON has them.
        share: Share of the conversations, in [0, 1].

    Returns:
        Tokens, a multiple of `LENGTH_STEP`; none where no length is known.
    """
    total, seen = sum(lengths.values()), 0
    for length, number in sorted((int(key), number) for key, number in lengths.items()):
        seen += number
        if seen >= share * total:
            return length
    return None


def label_of(conversation: Conversation) -> str:
    """Return a conversation's name for messages."""
    return "/".join(part for part in (conversation.source, conversation.id) if part) or "?"
