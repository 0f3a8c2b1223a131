"""Sample rows of a mix as text, in segments that show what the loss covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agenttuning_plugin.reports.segments import Segment, decode_pieces, message_text, shorten
from dataset_builders.manifest.surveys import trained_ranges
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.preparation import EncodedSources

if TYPE_CHECKING:
    from datasets import Dataset

EACH = 3  # rows per side
_LOOKED_AT = 512  # examples at the start of the mix
_MAX_TOKENS = 4096
_MAX_PIECE = 1500  # characters
_MAX_PIECES = 40


def sample_rows(
    prepared: EncodedSources, order: MixOrder, tokenizer: Any = None
) -> list[dict[str, Any]]:
    """Return the first rows of each side in the mix, of different tasks if there are several.

    Args:
        prepared: The sources.
        order: The order of the mix.
        tokenizer: The tokenizer of the rows, or none if they are messages.

    Returns:
        Position, side, id, task, where, numbers of tokens and pieces of text of each,
        JSON-ready. The middle of long pieces is omitted.
    """
    positions = np.arange(min(order.num_examples, _LOOKED_AT), dtype=np.int64)
    of_agent, rows = order.rows(positions)
    found: list[dict[str, Any]] = []
    for side, here in (("agent", of_agent), ("general", ~of_agent)):
        index, data = getattr(prepared, f"{side}_index"), getattr(prepared, side)
        if index is None or data is None:
            continue
        for position in _different(positions[here], rows[here], index):
            row = int(rows[position])
            facts = index.slice(row, 1).to_pylist()[0]
            found.append(
                {
                    "position": int(position),
                    "side": side,
                    **{name: facts[name] for name in ("id", "task", "model", "where")},
                    "tokens": facts["tokens"],
                    "trained_tokens": facts["trained_tokens"],
                    "pieces": _shortened(_pieces(data, row, tokenizer)),
                }
            )
    return found


def _different(positions: Any, rows: Any, index: Any) -> list[int]:
    """Return positions of different rows, those of new tasks first."""
    import pyarrow as pa

    tasks, seen = index["task"].take(pa.array(rows)).to_pylist(), set[int]()
    first: list[int] = []
    others: list[int] = []
    named = set[str]()
    for position, row, task in zip(positions.tolist(), rows.tolist(), tasks, strict=True):
        if row not in seen:
            (others if task in named else first).append(position)
            seen.add(row)
            named.add(task)
    return sorted((first + others)[:EACH])


def _pieces(data: Dataset, number: int, tokenizer: Any) -> list[Segment]:
    row = data[number]
    if "messages" in row:
        return [
            piece
            for message in row["messages"]
            for piece in (
                Segment(f"{message['role']}: ", False),
                Segment(f"{message_text(message)}\n", bool(message.get("train"))),
            )
        ]
    if tokenizer is None:
        return []
    import pyarrow as pa

    ids, labels = row["input_ids"][:_MAX_TOKENS], row["labels"][:_MAX_TOKENS]
    borders = trained_ranges(pa.array([labels], pa.list_(pa.int32()))).to_pylist()[0]
    spans = zip(borders[::2], borders[1::2], strict=True)
    pieces = decode_pieces(ids, spans, lambda part: str(tokenizer.decode(part)))
    if len(row["input_ids"]) > _MAX_TOKENS:
        left = len(row["input_ids"]) - _MAX_TOKENS
        pieces.append(Segment(f" … {left:,} more tokens", False))
    return pieces


def _shortened(pieces: list[Segment]) -> list[list[Any]]:
    shown = [[shorten(text, _MAX_PIECE), trained] for text, trained in pieces[:_MAX_PIECES]]
    if len(pieces) > _MAX_PIECES:
        shown.append([f" … {len(pieces) - _MAX_PIECES:,} more pieces", False])
    return shown
