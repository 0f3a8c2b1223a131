"""Chunks, the unit of encoding: a batch of conversations in, their rows as columns out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.coding import Coded
from dataset_builders.encoding.token_rows import Ints, Origin, TokenReport

CHUNK = 256
"""Maximum conversations per chunk."""

_CHUNK_CHARACTERS = 4_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Conversations that are encoded together.

    Attributes:
        conversations: The conversations.
        certified: How many of them have their trained turns located by two methods.
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
        report: Counts of the chunk's conversations.
    """

    ids: Ints
    labels: Ints
    lengths: Ints
    trained: Ints
    origins: list[Origin]
    report: TokenReport


def cut(conversations: Iterable[Conversation], certified: int) -> Iterator[Chunk]:
    """Cut a stream into chunks that are bounded in conversations and in characters."""
    chunk: list[Conversation] = []
    characters = 0
    for conversation in conversations:
        chunk.append(conversation)
        characters += sum(
            len(message.content) + len(message.reasoning or "") for message in conversation.messages
        )
        if len(chunk) == CHUNK or characters >= _CHUNK_CHARACTERS:
            yield Chunk(chunk, min(certified, len(chunk)))
            certified -= min(certified, len(chunk))
            chunk, characters = [], 0
    if chunk:
        yield Chunk(chunk, min(certified, len(chunk)))


def lay_out(rows: Sequence[Coded], origins: list[Origin], report: TokenReport) -> Rows:
    """Concatenate rows and count their tokens."""
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
