"""Conversations to token rows: ids, labels and what was left out.

Labels hold the token's own id where the loss covers it and -100 elsewhere, the contract
that Axolotl and TRL both take as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from dataset_builders.chat import ChatRenderer, Rendered
from dataset_builders.conversation import Conversation
from dataset_builders.errors import ConfigError, DataError, MaskError
from dataset_builders.rows import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset

LengthPolicy = Literal["drop", "truncate", "raise"]
LENGTH_POLICIES: tuple[str, ...] = get_args(LengthPolicy)

_BATCH = 256

Ints = npt.NDArray[np.int32]


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
        return int((self.labels != IGNORE_INDEX).sum())


@dataclass
class TokenReport:
    """What became of the conversations: `read == kept + sum(dropped.values())`.

    Attributes:
        read: Conversations seen.
        kept: Rows written.
        tokens: Tokens in the rows kept.
        trained_tokens: Those of them that the loss covers.
        dropped: Number of conversations left out, by reason.
        truncated: Rows kept whose end was cut off (policy "truncate").
        samples: For each reason the first few as "source/id: detail".
    """

    read: int = 0
    kept: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, conversation: Conversation, detail: str) -> None:
        """Count a conversation that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < 3:
            samples.append(f"{_label(conversation)}: {detail}")

    def keep(self, row: TokenRow) -> None:
        """Count a row."""
        self.kept += 1
        self.tokens += len(row.input_ids)
        self.trained_tokens += row.num_trained

    def summary(self) -> str:
        """One line for people."""
        share = self.trained_tokens / self.tokens if self.tokens else 0.0
        line = f"{self.kept} of {self.read} rows, {self.tokens} tokens, {share:.1%} trained"
        if self.truncated:
            line += f", {self.truncated} truncated"
        if self.dropped:
            line += ", dropped " + ", ".join(f"{n} {reason}" for reason, n in self.dropped.items())
        return line


class Encoder:
    """Turns conversations into token rows.

    Args:
        tokenizer: A fast Hugging Face tokenizer with a chat template.
        max_length: Longest row in tokens.
        policy: What happens to longer rows. "drop" leaves the conversation out: a cut
            row would end in the middle of a turn, and in agent data it is the trained end
            that would go. "truncate" cuts the end off, counts it, and leaves out a row
            that keeps no trained token. "raise" stops.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.

    Raises:
        ConfigError: The tokenizer cannot be used (see `ChatRenderer`), `max_length` is
            below 1 or the policy is unknown.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int,
        policy: LengthPolicy = "drop",
        end_of_turn: Iterable[str] = (),
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"max_length: found {max_length}, expected at least 1 token")
        if policy not in LENGTH_POLICIES:
            expected = ", ".join(LENGTH_POLICIES)
            raise ConfigError(f"length policy: found {policy!r}, expected one of {expected}")
        self.renderer = ChatRenderer(tokenizer, end_of_turn)
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._policy = policy

    def encode(
        self,
        conversations: Iterable[Conversation],
        report: TokenReport,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[TokenRow]:
        """Yield the rows of the conversations that can be used, in their order.

        Args:
            conversations: Conversations, streamed.
            report: Counts of what was kept and left out, filled as rows are taken.
            on_progress: Called with the number of conversations of each finished batch.

        Raises:
            DataError: A row is longer than `max_length` and the policy is "raise".
        """
        stream = iter(conversations)
        while batch := list(islice(stream, _BATCH)):
            yield from self._encode_batch(batch, report)
            if on_progress is not None:
                on_progress(len(batch))

    def _encode_batch(
        self, batch: Sequence[Conversation], report: TokenReport
    ) -> Iterator[TokenRow]:
        results = [self._render(conversation) for conversation in batch]
        rows = self._tokenize([result for result in results if isinstance(result, Rendered)])
        # Counted one by one as rows are taken: the counts hold wherever the caller stops.
        for conversation, result in zip(batch, results, strict=True):
            report.read += 1
            if isinstance(result, MaskError):
                report.drop("template", conversation, str(result))
            elif not result.spans:
                report.drop("no_trained_turn", conversation, "no turn is marked as trained")
            elif (row := self._fit(next(rows), conversation, report)) is not None:
                report.keep(row)
                yield row

    def _render(self, conversation: Conversation) -> Rendered | MaskError:
        try:
            return self.renderer.render(conversation)
        except MaskError as error:
            return error

    def _tokenize(self, rendered: Sequence[Rendered]) -> Iterator[TokenRow]:
        used = [result for result in rendered if result.spans]
        if not used:
            return
        encoded = self._tokenizer(
            [result.text for result in used],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        for result, ids, offsets in zip(
            used, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            yield _label_row(result, ids, offsets)

    def _fit(
        self, row: TokenRow, conversation: Conversation, report: TokenReport
    ) -> TokenRow | None:
        length = len(row.input_ids)
        if length <= self._max_length:
            return row
        detail = f"found {length} tokens, expected at most {self._max_length}"
        if self._policy == "raise":
            raise DataError(f"{_label(conversation)}: {detail}")
        if self._policy == "drop":
            report.drop("too_long", conversation, detail)
            return None
        cut = TokenRow(row.input_ids[: self._max_length], row.labels[: self._max_length])
        if cut.num_trained == 0:
            report.drop("no_trained_token_left", conversation, detail)
            return None
        report.truncated += 1
        return cut


def _label(conversation: Conversation) -> str:
    return "/".join(part for part in (conversation.source, conversation.id) if part) or "?"


def _label_row(rendered: Rendered, ids: Sequence[int], offsets: Sequence[Any]) -> TokenRow:
    """Mark the tokens that overlap a span.

    Overlap, not containment: a byte-level token may begin with the blank before the
    span, and one character may be spread over several tokens of equal offsets.
    """
    input_ids = np.asarray(ids, dtype=np.int32)
    bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    trained = np.zeros(len(input_ids), dtype=bool)
    for span in rendered.spans:
        trained |= (bounds[:, 1] > span.start) & (bounds[:, 0] < span.end)
    labels = np.where(trained, input_ids, IGNORE_INDEX).astype(np.int32)
    return TokenRow(input_ids, labels)


def encode_dataset(
    conversations: Iterable[Conversation],
    encoder: Encoder,
    *,
    what: str = "source",
    packing: bool = False,
    limit: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Dataset, TokenReport]:
    """Encode conversations into a dataset that SFTTrainer and Axolotl take as it is.

    Args:
        conversations: Conversations, streamed.
        encoder: The encoder.
        what: Name of the source in errors.
        packing: Whether to add the columns that Axolotl's sample packing reads.
        limit: Number of rows after which to stop.
        on_progress: Called with the number of conversations of each finished batch.

    Returns:
        The dataset and the report. Columns: `input_ids`, `labels` and `attention_mask`,
        each (T,); with `packing` also `position_ids` (T,) and `length`, the scalar T.

    Raises:
        DataError: No row is left; names the counts by reason and a sample.
    """
    from datasets import Dataset

    report = TokenReport()
    rows = islice(encoder.encode(conversations, report, on_progress), limit)
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "attention_mask": []}
    if packing:
        columns |= {"position_ids": [], "length": []}
    for row in rows:
        length = len(row.input_ids)
        columns["input_ids"].append(row.input_ids)
        columns["labels"].append(row.labels)
        columns["attention_mask"].append(np.ones(length, dtype=np.int8))
        if packing:
            columns["position_ids"].append(np.arange(length, dtype=np.int32))
            columns["length"].append(length)
    if not report.kept:
        samples = [sample for group in report.samples.values() for sample in group]
        example = f" Example: {samples[0]}" if samples else ""
        raise DataError(f"{what}: no trainable row is left ({report.summary()}).{example}")
    return Dataset.from_dict(columns, features=_features(packing)), report


def _features(packing: bool) -> Any:
    from datasets import Features, List, Value

    columns: dict[str, Any] = {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "attention_mask": List(Value("int8")),
    }
    if packing:
        columns |= {"position_ids": List(Value("int32")), "length": Value("int32")}
    return Features(columns)
