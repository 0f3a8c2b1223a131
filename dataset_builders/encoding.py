"""Conversations to token rows: rendered, encoded, labelled and made to fit, in chunks.

A chunk's rows are a function of its conversations alone, so chunks may be encoded in
several processes, and the data are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from dataset_builders.chat import ChatRenderer, Rendered
from dataset_builders.conversation import Conversation
from dataset_builders.engines import (
    Engine,
    EngineName,
    HuggingFaceEngine,
    check_engine_name,
    choose_engine,
)
from dataset_builders.errors import ConfigError, DataError, MaskError
from dataset_builders.lengths import LENGTH_POLICIES, LengthPolicy, shorten, split
from dataset_builders.literals import LiteralEncoder
from dataset_builders.offsets import Bounds, TokenWidths, label, to_bytes
from dataset_builders.parallel import in_order
from dataset_builders.token_rows import Ints, Origin, TokenReport, TokenRow, label_of

CHUNK = 256
"""Most conversations in a chunk."""

_CHUNK_CHARACTERS = 4_000_000
_SAMPLE = 200
_CERTIFIED = 32


@dataclass(frozen=True, slots=True)
class Coded:
    """A rendered conversation as tokens.

    Attributes:
        row: Its ids and labels.
        ends: For each trained turn, the tokens up to its end.
        literal: Whether its own words spell a control token.
        by_reference: Whether the fast engine left it to the reference.
    """

    row: TokenRow
    ends: list[int]
    literal: bool
    by_reference: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Conversations that are encoded together.

    Attributes:
        conversations: The conversations.
        certified: How many of them have their trained turns located in two ways.
    """

    conversations: list[Conversation]
    certified: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a chunk.

    Attributes:
        ids: (N,) int32, the tokens of all rows, one after the other.
        labels: (N,) int32.
        lengths: (R,) int32, tokens of each row.
        trained: (R,) int32, those of them that the loss covers.
        origins: Where each row comes from.
        report: What became of the chunk's conversations.
    """

    ids: Ints
    labels: Ints
    lengths: Ints
    trained: Ints
    origins: list[Origin]
    report: TokenReport


class Encoder:
    """Turns conversations into token rows.

    Args:
        tokenizer: A fast Hugging Face tokenizer with a chat template.
        max_length: Longest row in tokens.
        policy: What happens to longer rows. "drop" leaves the conversation out. "split"
            makes several of it, at user turns (for chat). "shorten" leaves out the oldest
            turns after the instruction (for agents). "raise" stops. "truncate" cuts the
            end off, which is the trained one, counts it, and leaves out a row that keeps
            no trained token; Axolotl's `excess_length_strategy` asks for it.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.
        engine: "auto" takes tiktoken where it gives the tokenizer's own ids, see
            `choose_engine`.

    Raises:
        ConfigError: The tokenizer cannot be used (see `ChatRenderer`), `max_length` is
            below 1, or the policy or the engine is unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        policy: LengthPolicy = "drop",
        end_of_turn: Iterable[str] = (),
        engine: EngineName = "auto",
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length: found {max_length}, expected at least 1 token")
        if policy not in LENGTH_POLICIES:
            expected = ", ".join(LENGTH_POLICIES)
            raise ConfigError(f"length policy: found {policy!r}, expected one of {expected}")
        check_engine_name(engine)
        self.renderer = ChatRenderer(tokenizer, end_of_turn)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._policy = policy
        self._engine_name = engine
        self._reference = HuggingFaceEngine(tokenizer)
        self._widths = TokenWidths.of(tokenizer)
        self._chosen: tuple[Engine, str] | None = None
        self._literals: LiteralEncoder | None = None

    def encode(
        self,
        conversations: Iterable[Conversation],
        report: TokenReport,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[TokenRow]:
        """Yield the rows of the conversations that can be used, in their order.

        Args:
            conversations: Conversations, streamed.
            report: Counts of what was kept and left out, filled chunk by chunk.
            on_progress: Called with the number of conversations of each finished chunk.

        Raises:
            ConfigError: The engine that was asked for cannot be used.
            DataError: A row is longer than `max_length` and the policy is "raise".
        """
        for rows in self.encode_chunks(conversations):
            report.add(rows.report)
            ends = np.cumsum(rows.lengths)
            for start, end in zip(ends - rows.lengths, ends, strict=True):
                yield TokenRow(rows.ids[start:end], rows.labels[start:end])
            if on_progress is not None:
                on_progress(rows.report.read)

    def encode_chunks(
        self, conversations: Iterable[Conversation], processes: int = 1
    ) -> Iterator[Rows]:
        """Encode a stream of conversations chunk by chunk.

        Args:
            conversations: Conversations, streamed.
            processes: Number of processes; the rows do not depend on it.

        Raises:
            ConfigError: The engine that was asked for cannot be used.
            DataError: A row is longer than `max_length` and the policy is "raise".
            WorkerLostError: A process was ended from outside.
        """
        chunks = _chunks(conversations)
        first = next(chunks, None)
        if first is None:
            return
        self._choose(first.conversations)
        yield from in_order(self.encode_chunk, chain([first], chunks), processes)

    def encode_chunk(self, chunk: Chunk) -> Rows:
        """Encode conversations together; a function of them alone.

        Raises:
            DataError: A row is longer than `max_length` and the policy is "raise".
        """
        engine, reason = self._choose(chunk.conversations)
        report = TokenReport(engine=engine.name, engine_reason=reason)
        rendered = [
            self._render(conversation, number < chunk.certified)
            for number, conversation in enumerate(chunk.conversations)
        ]
        coded = iter(self._code([item for item in rendered if isinstance(item, Rendered)]))
        rows: list[TokenRow] = []
        origins: list[Origin] = []
        for conversation, result in zip(chunk.conversations, rendered, strict=True):
            report.read += 1
            item = next(coded) if isinstance(result, Rendered) else result
            if isinstance(item, Exception):
                reason = "template" if isinstance(item, MaskError) else "no_trained_turn"
                report.drop(reason, conversation, str(item))
                continue
            kept = self._fit(item, conversation, report)
            report.kept += bool(kept)
            for part, one in enumerate(kept, start=1):
                rows.append(one.row)
                origins.append(Origin.of(conversation, part if len(kept) > 1 else 0))
                report.keep(one.row)
                report.control_tokens += one.literal
                report.by_reference += one.by_reference
        return _columns(rows, origins, report)

    def encode_prompt(self, rendered: Rendered) -> list[int]:
        """Ids of a rendered prompt, encoded as training rows are.

        Raises:
            MaskError: The text cannot be encoded.
        """
        (coded,) = self._code([rendered], engine=self._reference)
        if isinstance(coded, MaskError):
            raise coded
        ids: list[int] = coded.row.input_ids.tolist()
        return ids

    def _choose(self, conversations: Sequence[Conversation]) -> tuple[Engine, str]:
        """The engine, chosen on the first conversations that are encoded."""
        if self._chosen is None:
            rendered = [self._render(item) for item in conversations[:_SAMPLE]]
            sample = [
                item.text for item in rendered if isinstance(item, Rendered) and not item.literals
            ]
            self._chosen = choose_engine(self._tokenizer, self._engine_name, sample)
        return self._chosen
