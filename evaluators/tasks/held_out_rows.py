"""Rows that a loss is measured on: encoded by the run, or conversations of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import TokenReport
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.preparation import LENGTH_DEFAULTS
from evaluators.evaluator import EvalTarget
from evaluators.tasks.item_order import fixed_order

if TYPE_CHECKING:
    from datasets import Dataset

Pair = tuple[list[int], list[int]]
"""Token ids and labels of a row, each of length T."""


class HeldOutRows(Protocol):
    """Items of one or several rows each."""

    def items(self) -> tuple[str, ...]:
        """Return the names of the items."""

    def about(self) -> str:
        """Return number and digest of the items, in one line."""

    def rows(self, subject: EvalTarget, items: Sequence[str]) -> dict[str, list[Pair] | str]:
        """Return the rows of each item, or why it has none.

        Args:
            subject: The model, whose tokenizer encodes what is not encoded yet.
            items: Names of the items.
        """


class EncodedRows:
    """Rows that are encoded already: each is an item, named by its number.

    Args:
        rows: Rows with `input_ids` and `labels`, each (T,).
    """

    def __init__(self, rows: Dataset | Sequence[Mapping[str, Any]]) -> None:
        self._rows = [(list(row["input_ids"]), list(row["labels"])) for row in rows]

    def items(self) -> tuple[str, ...]:
        """Return the numbers of the rows."""
        return tuple(str(number) for number in range(len(self._rows)))

    def about(self) -> str:
        """Return number and digest of the rows."""
        return f"{len(self._rows)} conversations, {_digest(self._rows)}"

    def rows(self, subject: EvalTarget, items: Sequence[str]) -> dict[str, list[Pair] | str]:
        """Return the row of each item."""
        del subject
        return {item: [self._rows[int(item)]] for item in items}


class ConversationRows:
    """Conversations of a source, each an item, encoded with the tokenizer of the model.

    A conversation that is longer than `max_length` is split, as general chat is in training.

    Args:
        conversations: The conversations.
        limit: Number of items, the first in `item_order.fixed_order`; default: all.
        max_length: Maximum tokens of a row.

    Raises:
        ConfigError: No conversation has a trained turn.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        limit: int | None = None,
        max_length: int = 2048,
    ) -> None:
        usable = [conversation for conversation in conversations if conversation.num_trained]
        if not usable:
            raise ConfigError("data: found no conversation with a trained turn, expected some")
        named = {f"conversation-{number:05}": each for number, each in enumerate(usable)}
        self._conversations = {item: named[item] for item in fixed_order(named)[:limit]}
        self._max_length = max_length

    def items(self) -> tuple[str, ...]:
        """Return the names of the conversations."""
        return tuple(self._conversations)

    def about(self) -> str:
        """Return number and digest of the conversations."""
        texts = [
            [(message.role, message.content) for message in each.messages]
            for each in self._conversations.values()
        ]
        return f"{len(texts)} conversations, {_digest(texts)}"

    def rows(self, subject: EvalTarget, items: Sequence[str]) -> dict[str, list[Pair] | str]:
        """Encode the conversations; see `HeldOutRows.rows`."""
        encoder = Encoder(
            subject.tokenizer,
            max_length=self._max_length,
            policy=LENGTH_DEFAULTS["general"],
            end_of_turn=subject.end_of_turn,
            rows="auto",
        )
        found: dict[str, list[Pair] | str] = {}
        for item in items:
            report = TokenReport()
            rows = encoder.encode([self._conversations[item]], report)
            pairs = [(row.input_ids.tolist(), row.labels.tolist()) for row in rows]
            found[item] = pairs or report.summary()
        return found


def _digest(rows: object) -> str:
    return blake2b(repr(rows).encode("utf-8", "replace"), digest_size=4).hexdigest()
