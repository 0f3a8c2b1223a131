"""Encode conversations as token rows: render, tokenize, label and fit, in chunks.

A chunk's rows are a function of its conversations alone, so chunks may be encoded in
several processes, and the data are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.chunks import Chunk, Rows, cut, lay_out
from dataset_builders.encoding.coding import Coded, Coder
from dataset_builders.encoding.collector import collector_paused
from dataset_builders.encoding.engines import (
    Engine,
    EngineName,
    HuggingFaceEngine,
    check_engine_name,
    choose_engine,
)
from dataset_builders.encoding.fitting import Fitter
from dataset_builders.encoding.lengths import LENGTH_POLICIES, LengthPolicy
from dataset_builders.encoding.parallel import in_order
from dataset_builders.encoding.row_account import Account
from dataset_builders.encoding.token_rows import TokenReport, TokenRow
from dataset_builders.encoding.turn_rows import TurnRows, Views
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.spans import Rendered
from dataset_builders.row_options import ROW_SPLITS, RowOptions, RowSplit

_CERTIFIED = 32
_CONFIRMED = 2

_MaybeRendered = Views | MaskError | None
"""The rows of a conversation, or why there is none; nothing if no turn is trained."""


class Encoder:
    """Turns conversations into token rows.

    Args:
        tokenizer: A fast Hugging Face tokenizer with a chat template.
        max_length: Longest row in tokens.
        policy: What happens to longer rows. "drop" drops the conversation. "split" splits it into
            several rows at user turns (for chat). "shorten" removes the oldest turns after the
            instruction (for agents). "raise" stops. "truncate" cuts off the end, which is the
            trained part, counts it, and drops a row that keeps no trained token; this is Axolotl's
            `excess_length_strategy: truncate`.
        end_of_turn: Additional end-of-turn tokens besides eos, see `ChatRenderer`.
        engine: "auto" takes tiktoken where it gives the tokenizer's own ids, see
            `choose_engine`.
        rows: How many rows a conversation gives whose source does not say so, see
            `RowOptions.rows`.

    Raises:
        ConfigError: The tokenizer cannot be used (see `ChatRenderer`), `max_length` is
            below 1, or the policy, the engine or `rows` is unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        policy: LengthPolicy = "drop",
        end_of_turn: Iterable[str] = (),
        engine: EngineName = "auto",
        rows: RowSplit = "conversation",
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length: found {max_length}, expected at least 1 token")
        if policy not in LENGTH_POLICIES:
            expected = ", ".join(LENGTH_POLICIES)
            raise ConfigError(f"length policy: found {policy!r}, expected one of {expected}")
        if rows not in ROW_SPLITS:
            expected = ", ".join(ROW_SPLITS)
            raise ConfigError(f"rows: found {rows!r}, expected one of {expected}")
        check_engine_name(engine)
        self.renderer = ChatRenderer(tokenizer, end_of_turn)
        self._tokenizer = tokenizer
        self._coder = Coder(tokenizer)
        self._turn_rows = TurnRows(self.renderer, RowOptions(rows))
        self._fitter = Fitter(max_length, policy, self._measure)
        self._engine_name = engine
        self._chosen: tuple[Engine, str] | None = None
        # The first chunk, rendered to choose the engine on it.
        self._first: tuple[Chunk, list[_MaybeRendered]] | None = None

    def encode(
        self,
        conversations: Iterable[Conversation],
        report: TokenReport,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[TokenRow]:
        """Yield the rows of the conversations that can be used, in order.

        Args:
            conversations: Conversations, streamed.
            report: Counts of what was kept and left out, filled chunk by chunk.
            on_progress: Called with the number of conversations of each finished chunk.

        Raises:
            ConfigError: The requested engine cannot be used.
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
            ConfigError: The requested engine cannot be used.
            DataError: A row is longer than `max_length` and the policy is "raise".
            WorkerLostError: A worker process was killed.
        """
        chunks = cut(conversations, _CERTIFIED)
        first = next(chunks, None)
        if first is None:
            return
        with collector_paused():
            rendered = self._render_all(first)
            self._choose(rendered)
        if processes <= 1:  # The others get the conversations alone.
            self._first = first, rendered
        yield from in_order(self.encode_chunk, chain([first], chunks), processes)

    def encode_chunk(self, chunk: Chunk) -> Rows:
        """Encode a chunk of conversations; the result depends on them alone.

        Raises:
            CertificationError: Two methods of locating the trained turns disagree.
            DataError: A row is longer than `max_length` and the policy is "raise", or the
                fast engine, confirmed on a few rows of each chunk, gave a wrong id.
        """
        with collector_paused():
            return self._encode_chunk(chunk)

    def _encode_chunk(self, chunk: Chunk) -> Rows:
        known, self._first = self._first, None
        rendered = known[1] if known and known[0] is chunk else self._render_all(chunk)
        engine, reason = self._choose(rendered)
        report = TokenReport(
            read=len(chunk.conversations), engine=engine.name, engine_reason=reason
        )
        found = self._coder.encode(_renderings(rendered), engine)
        if engine.name != HuggingFaceEngine.name:
            self._coder.confirm([item for item in found if isinstance(item, Coded)][-_CONFIRMED:])
        coded = iter(found)
        account = Account(self.renderer, self._coder, self._fitter, engine, report)
        for conversation, result in zip(chunk.conversations, rendered, strict=True):
            if result is None:
                report.drop("no_trained_turn", conversation, "no turn is marked as trained")
            elif isinstance(result, MaskError):
                report.drop(result.reason, conversation, str(result))
            else:
                items = list(islice(coded, len(result.rows)))
                account.add(conversation, result, items)
        return lay_out(account.rows, account.origins, report)

    def _choose(self, rendered: Sequence[_MaybeRendered]) -> tuple[Engine, str]:
        """Choose the engine, on the first conversations that are encoded."""
        if self._chosen is None:
            texts = [item.text for item in _renderings(rendered) if not item.literals]
            self._chosen = choose_engine(
                self._tokenizer, self._coder.spec, self._engine_name, texts
            )
        return self._chosen

    def _render_all(self, chunk: Chunk) -> list[_MaybeRendered]:
        return [
            self._render(conversation, number < chunk.certified)
            for number, conversation in enumerate(chunk.conversations)
        ]

    def _render(self, conversation: Conversation, certify: bool = False) -> _MaybeRendered:
        """Render a conversation, or return why not; None if no turn is trained on."""
        if not conversation.num_trained:
            return None
        try:
            return self._turn_rows.of(conversation, certify)
        except MaskError as error:
            return error

    def _measure(self, conversation: Conversation) -> tuple[Coded, int] | None:
        """Encode a part of a conversation and count its tokens."""
        try:
            rendered = self.renderer.render(conversation)
        except MaskError:
            return None
        assert self._chosen is not None
        (coded,) = self._coder.encode([rendered], self._chosen[0])
        return None if isinstance(coded, MaskError) else (coded, len(coded.row.input_ids))


def _renderings(rendered: Sequence[_MaybeRendered]) -> list[Rendered]:
    return [row.rendered for item in rendered if isinstance(item, Views) for row in item.rows]
