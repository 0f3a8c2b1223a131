"""Encode conversations as token rows: render, tokenize, label and fit, in chunks.

A chunk's rows are a function of its conversations alone, so chunks may be encoded in
several processes, and the data are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
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
from dataset_builders.encoding.lengths import LENGTH_POLICIES, LengthPolicy, shorten, split
from dataset_builders.encoding.parallel import in_order
from dataset_builders.encoding.token_rows import Origin, TokenReport, TokenRow, label_of
from dataset_builders.errors import ConfigError, DataError, MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.spans import Rendered

_CERTIFIED = 32
_CONFIRMED = 2

_MaybeRendered = Rendered | MaskError | None
"""A rendering, or why there is none; nothing if no turn is trained."""


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
        used = [item for item in rendered if isinstance(item, Rendered)]
        found = self._coder.encode(used, engine)
        if engine.name != HuggingFaceEngine.name:
            self._coder.confirm([item for item in found if isinstance(item, Coded)][-_CONFIRMED:])
        coded = iter(found)
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
                report.leave_out(conversation, item.rendered.left_out)
                if self.renderer.writes_reasoning_as_text:
                    report.reasoning_as_text += sum(
                        bool(m.reasoning) for m in conversation.messages
                    )
                if item.rendered.certified:
                    report.certified += 1
                    report.off_prompt += self._off_prompt(conversation, item, engine)
                first = 1 if self._policy == "split" and kept[0] is not item else 0
                origins += (Origin.of(conversation, first + n) for n in range(len(kept)))
                rows += kept
        return lay_out(rows, origins, report)

    def _choose(self, rendered: Sequence[_MaybeRendered]) -> tuple[Engine, str]:
        """Choose the engine, on the first conversations that are encoded."""
        if self._chosen is None:
            texts = [
                item.text for item in rendered if isinstance(item, Rendered) and not item.literals
            ]
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
            return self.renderer.render(conversation, certify)
        except MaskError as error:
            return error

    def _off_prompt(self, conversation: Conversation, coded: Coded, engine: Engine) -> int:
        """Count trained turns whose row does not begin with the ids of their prompt."""
        messages, prompts = conversation.messages, []
        for end in (number for number, message in enumerate(messages) if message.trained):
            try:
                prompts.append(self.renderer.render_prompt(messages[:end], conversation.tools))
            except MaskError:  # There is no prompt before the turn.
                continue
        off = self._coder.off_prompt(coded.row, prompts, engine)
        return off + conversation.num_trained - len(prompts)

    def _fit(self, coded: Coded, conversation: Conversation, report: TokenReport) -> list[Coded]:
        """Apply the length policy to a conversation; no rows if it is dropped."""
        length = len(coded.row.input_ids)
        report.trained_turns += conversation.num_trained
        report.count_length(length)
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
        """Encode a part of a conversation and count its tokens."""
        rendered = self._render(conversation)
        if not isinstance(rendered, Rendered):
            return None
        (coded,) = self._coder.encode([rendered], self._choose([rendered])[0])
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
