"""Conversations to token rows: rendered, encoded, labelled and made to fit, in chunks.

A chunk's rows are a function of its conversations alone, so chunks may be encoded in
several processes, and the data are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from dataset_builders.chat import ChatRenderer
from dataset_builders.coding import Coded, Coder
from dataset_builders.conversation import Conversation
from dataset_builders.engines import SAMPLE, Engine, EngineName, check_engine_name, choose_engine
from dataset_builders.errors import ConfigError, DataError, MaskError
from dataset_builders.lengths import LENGTH_POLICIES, LengthPolicy, shorten, split
from dataset_builders.parallel import in_order
from dataset_builders.spans import Rendered
from dataset_builders.token_rows import Ints, Origin, TokenReport, TokenRow, label_of

CHUNK = 256
"""Most conversations in a chunk."""

_CHUNK_CHARACTERS = 4_000_000
_CERTIFIED = 32


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
        self._coder = Coder(tokenizer)
        self._max_length = max_length
        self._policy = policy
        self._engine_name = engine
        self._chosen: tuple[Engine, str] | None = None

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
            CertificationError: Two ways of finding the trained turns disagree.
            DataError: A row is longer than `max_length` and the policy is "raise".
        """
        engine, reason = self._choose(chunk.conversations)
        report = TokenReport(
            read=len(chunk.conversations), engine=engine.name, engine_reason=reason
        )
        rendered = [
            self._render(conversation, number < chunk.certified)
            for number, conversation in enumerate(chunk.conversations)
        ]
        used = [item for item in rendered if isinstance(item, Rendered)]
        coded = iter(self._coder.encode(used, engine))
        rows: list[Coded] = []
        origins: list[Origin] = []
        for conversation, result in zip(chunk.conversations, rendered, strict=True):
            item = next(coded) if isinstance(result, Rendered) else result
            if item is None:
                report.drop("no_trained_turn", conversation, "no turn is marked as trained")
            elif isinstance(item, MaskError):
                report.drop(item.reason, conversation, str(item))
            elif kept := self._fit(item, conversation, report):
                report.kept += 1
                report.certified += item.rendered.certified
                first = 1 if self._policy == "split" and kept[0] is not item else 0
                origins += (Origin.of(conversation, first + n) for n in range(len(kept)))
                rows += kept
        return _columns(rows, origins, report)

    def encode_prompt(self, rendered: Rendered) -> list[int]:
        """Ids of a rendered prompt, as a training row that begins with it has them.

        Args:
            rendered: What `ChatRenderer.render_prompt` gives.

        Raises:
            MaskError: The text cannot be encoded.
        """
        return self._coder.prompt_ids(rendered)

    def _choose(self, conversations: Sequence[Conversation]) -> tuple[Engine, str]:
        """The engine, chosen on the first conversations that are encoded."""
        if self._chosen is None:
            rendered = (self._render(item) for item in conversations)
            texts = (
                item.text for item in rendered if isinstance(item, Rendered) and not item.literals
            )
            sample = list(islice(texts, SAMPLE)) if self._engine_name != "huggingface" else []
            self._chosen = choose_engine(
                self._tokenizer, self._coder.spec, self._engine_name, sample
            )
        return self._chosen

    def _render(
        self, conversation: Conversation, certify: bool = False
    ) -> Rendered | MaskError | None:
        """Rendering of a conversation, or why there is none; nothing if none is trained."""
        if not conversation.num_trained:
            return None
        try:
            return self.renderer.render(conversation, certify)
        except MaskError as error:
            return error

    def _fit(self, coded: Coded, conversation: Conversation, report: TokenReport) -> list[Coded]:
        """The rows that a conversation gives under the length policy; none if it is left out."""
        length = len(coded.row.input_ids)
        if length <= self._max_length:
            return [coded]
        detail = f"found {length} tokens, expected at most {self._max_length}"
        if self._policy == "raise":
            raise DataError(f"{label_of(conversation)}: {detail}")
        if self._policy == "truncate":
            return self._truncate(coded, conversation, detail, report)
        rows: list[Coded] = []
        if self._policy == "split":
            rows, removed = split(conversation, coded.ends, self._max_length, self._measure)
            if rows:
                report.split += 1
                report.pieces += len(rows)
                report.turns_removed += removed
        elif self._policy == "shorten" and (
            found := shorten(conversation, coded.ends, self._max_length, self._measure)
        ):
            rows = [found[0]]
            report.shortened += 1
            report.turns_removed += found[1]
        if not rows:
            report.drop("too_long", conversation, detail)
        return rows

    def _measure(self, conversation: Conversation) -> tuple[Coded, int] | None:
        """A part of a conversation as tokens, and their number."""
        rendered = self._render(conversation)
        if not isinstance(rendered, Rendered):
            return None
        (coded,) = self._coder.encode([rendered], self._choose([conversation])[0])
        return None if isinstance(coded, MaskError) else (coded, len(coded.row.input_ids))

    def _truncate(
        self, coded: Coded, conversation: Conversation, detail: str, report: TokenReport
    ) -> list[Coded]:
        end = self._max_length
        row = TokenRow(coded.row.input_ids[:end], coded.row.labels[:end])
        if not row.num_trained:
            report.drop("no_trained_token_left", conversation, detail)
            return []
        report.truncated += 1
        return [replace(coded, row=row)]


def _chunks(conversations: Iterable[Conversation]) -> Iterator[Chunk]:
    """Cut a stream into chunks that are bounded in conversations and in characters."""
    certified = _CERTIFIED
    chunk: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        chunk.append(conversation)
        characters += sum(len(message.content) for message in conversation.messages)
        if len(chunk) == CHUNK or characters >= _CHUNK_CHARACTERS:
            yield Chunk(chunk, min(certified, len(chunk)))
            certified -= min(certified, len(chunk))
            chunk, characters = [], 0
    if chunk:
        yield Chunk(chunk, min(certified, len(chunk)))


def _columns(rows: list[Coded], origins: list[Origin], report: TokenReport) -> Rows:
    """Lay rows end to end and count them."""
    empty = np.zeros(0, dtype=np.int32)
    ids = np.concatenate([item.row.input_ids for item in rows]) if rows else empty
    labels = np.concatenate([item.row.labels for item in rows]) if rows else empty
    lengths = np.array([len(item.row.input_ids) for item in rows], dtype=np.int32)
    trained = np.array([item.row.num_trained for item in rows], dtype=np.int32)
    report.rows = len(rows)
    report.tokens, report.trained_tokens = len(ids), int(trained.sum())
    report.control_tokens = sum(bool(item.rendered.literals) for item in rows)
    report.by_reference = sum(item.by_reference for item in rows)
    return Rows(ids, labels, lengths, trained, origins, report)
