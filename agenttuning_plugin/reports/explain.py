"""`agenttuning explain`: the rows of an optimizer step, from the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dataset_builders.encoding.row_index import TEXTS
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import SPANS, Batch
from dataset_builders.manifest.store import Manifest
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.packed_order import Packing, bins_of
from dataset_builders.mixing.permutation import Index


@dataclass(frozen=True, slots=True)
class Example:
    """A row at one position of the stream.

    Attributes:
        position: Number in the mix, from 0.
        rank: Rank of the process that trained on it.
        micro_batch: Number of that process's forward pass in the step, from 0.
        packed_row: Number of its packed row, or None without packing.
        side: "agent" or "general".
        row: Number of the row within its side.
        exposure: How often the row had occurred so far, including this time.
        part: Number of the row where its conversation gives several, else 0.
        id: Identifier within the source.
        source: Name of the source.
        task: Task within the source, or "".
        model: Model that wrote the assistant's turns, or "".
        where: File and record, or "".
        tokens: Tokens of the row, or -1 where rows are not encoded.
        trained_tokens: Those that the loss covers, or -1.
        spans: Ranges of tokens that the loss covers, ends exclusive.
    """

    position: int
    rank: int
    micro_batch: int
    packed_row: int | None
    side: str
    row: int
    exposure: int
    part: int
    id: str
    source: str
    task: str
    model: str
    where: str
    tokens: int
    trained_tokens: int
    spans: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**asdict(self), "spans": [list(span) for span in self.spans]}


def explain(
    manifest: Manifest,
    step: int,
    *,
    rank: int | None = None,
    batch_size: int | None = None,
) -> list[Example]:
    """Return the rows of an optimizer step, in training order.

    A step takes the next `batch_size` rows of the stream. Of its micro-batches, rank r of W takes
    those with number r modulo W, as accelerate distributes them.

    Args:
        manifest: The manifest of the run.
        step: Optimizer step, from 0: what trainers log as step k trained on step k - 1.
        rank: Rank, from 0; None: all.
        batch_size: Rows per step, if the manifest does not state it.

    Raises:
        ConfigError: There is no such step or process, the batch is not known, or it is
            given and known to be another.
        DataError: The order cannot be rebuilt.
    """
    bins = _bins(manifest)
    batch = _batch(manifest, batch_size)
    order = manifest.order
    rows = order.num_examples if bins is None else len(bins)
    steps = -(-rows // batch.size)
    if not 0 <= step < steps:
        raise ConfigError(
            f"--step: found {step}, expected 0 to {steps - 1:,}: {rows:,} "
            f"{'examples' if bins is None else 'packed rows'} in steps of {batch.size:,}"
        )
    if rank is not None and not 0 <= rank < batch.world:
        raise ConfigError(
            f"--rank: found {rank}, expected 0 to {batch.world - 1}: the number of processes "
            f"was {batch.world}"
        )
    numbers = range(step * batch.size, min(rows, (step + 1) * batch.size))
    seen = _stream(order, bins, numbers.stop)
    first = numbers.start if bins is None else sum(len(bins[n]) for n in range(numbers.start))
    found: list[Example] = []
    for number in numbers:
        forward, of_rank = divmod((number - numbers.start) // batch.micro, batch.world)
        for position in [number] if bins is None else bins[number].tolist():
            if rank in (None, of_rank):
                packed = None if bins is None else number
                found.append(_example(manifest, position, seen, first, of_rank, forward, packed))
            first += 1
    return found


def _bins(manifest: Manifest) -> Sequence[Index] | None:
    """With packing, return the positions of each packed row, in training order."""
    settings = manifest.content["packing"]
    if settings is None:
        return None
    agent, general = (manifest.indices.get(side) for side in ("agent", "general"))
    bins = bins_of(manifest.order, agent, general, Packing(**settings))
    return [bins[number] for number in range(len(bins))]


def _batch(manifest: Manifest, batch_size: int | None) -> Batch:
    known = manifest.batch
    if known is None and batch_size is None:
        raise ConfigError("--batch-size: missing; the manifest is of data, not of a training run")
    if known is None:
        assert batch_size is not None
        return Batch(micro=batch_size)
    if batch_size not in (None, known.size):
        raise ConfigError(f"--batch-size: found {batch_size}, but the run's was {known.size}")
    return known


def _stream(order: MixOrder, bins: Sequence[Index] | None, end: int) -> Index:
    """Return rows in training order, agent rows first, up to a row of the batches."""
    if bins is None:
        return order.slice(0, end)
    parts = [np.asarray(bins[number], dtype=np.int64) for number in range(end)]
    positions = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    agent, row = order.rows(positions)
    return np.where(agent, row, row + order.num_agent)


def _example(
    manifest: Manifest,
    position: int,
    seen: Index,
    place: int,
    rank: int,
    forward: int,
    packed_row: int | None,
) -> Example:
    number = int(seen[place])
    num_agent = manifest.order.num_agent
    side = "agent" if number < num_agent else "general"
    row = number if side == "agent" else number - num_agent
    facts = manifest.indices[side].slice(row, 1).to_pylist()[0]
    borders = facts[SPANS]
    return Example(
        position=position,
        rank=rank,
        micro_batch=forward,
        packed_row=packed_row,
        side=side,
        row=row,
        exposure=int((seen[: place + 1] == number).sum()),
        part=facts["part"],
        **{name: facts[name] for name in TEXTS},
        tokens=facts["tokens"],
        trained_tokens=facts["trained_tokens"],
        spans=tuple(zip(borders[::2], borders[1::2], strict=True)),
    )
