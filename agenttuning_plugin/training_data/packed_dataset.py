"""Packed rows as a dataset for both trainers: a view, tokens are copied only on use.

The dataset holds the numbers of each bin's rows, some 30 bytes a bin, and fetches their
tokens from the sources when a batch is asked for. Both trainers keep it unchanged with the right
settings: `AXOLOTL_ARGUMENTS` and `trainer_checks.sft_defaults`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.mix_report import loss_shares, repeat_rate
from dataset_builders.mixing.packed_order import PackedOrder, Packing, pack_plan
from dataset_builders.mixing.packing import Bins
from dataset_builders.mixing.planning import Plan, counts_of

if TYPE_CHECKING:
    from datasets import Dataset

    from dataset_builders.mixing.preparation import EncodedSources

COLUMNS = ("input_ids", "labels")
"""What a source has to have; other columns of it are not read."""

# The rows are packed already, so the trainer's own packer stays out, in its arguments only:
# Axolotl reads its recipe's `sample_packing` when it patches a model for packed rows.
AXOLOTL_ARGUMENTS: Mapping[str, Any] = MappingProxyType(
    {"sample_packing": False, "remove_unused_columns": False}
)
"""What Axolotl's training arguments have to be for packed rows."""

ROWS = "rows"
"""Column of a packed view: the numbers of each packed row's rows, agent rows first."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackedMix:
    """Packed data of a run.

    Attributes:
        rows: The packed rows, as `packed_dataset` makes them.
        order: The order of the mix, and the positions in each packed row.
        report: See `describe_packing`; with the share of each side's examples that repeat another
            of their own packed row, and of their batch; and the share of the loss of agent data.
    """

    rows: Dataset
    order: PackedOrder
    report: dict[str, Any]


def pack_mix(
    prepared: EncodedSources,
    plan: Plan,
    packing: Packing,
    *,
    seed: int,
    stages: Sequence[tuple[int, float]] = (),
) -> PackedMix:
    """Draw and pack the examples of a run.

    Args:
        prepared: Encoded sources.
        plan: The plan of the mix; its eta is one number.
        packing: Packing settings.
        seed: Any integer.
        stages: Packed row and share of agent data from there on.

    Raises:
        ConfigError: See `pack_plan` and `packed_dataset`.
    """
    found = pack_plan(
        plan, prepared.agent_index, prepared.general_index, packing, seed=seed, stages=stages
    )
    order = found.planned.order
    agent = prepared.agent if order.num_agent else None
    general = prepared.general if order.num_general else None
    agent_index = prepared.agent_index if order.num_agent else None
    general_index = prepared.general_index if order.num_general else None
    rows = order.indices()
    report = describe_packing(
        found.bins,
        rows < order.num_agent,
        counts_of(agent_index, general_index, "tokens")[rows],
        counts_of(agent_index, general_index, "trained_tokens")[rows],
        packing.batch,
    )
    number, size = np.arange(len(found.bins)), np.diff(found.bins.offsets)
    drawn = rows[found.bins.positions]
    for name, groups in (("row", number), ("batch", number // packing.batch)):
        rate = repeat_rate(drawn, np.repeat(groups, size), order.num_agent)
        report[f"repeats_in_{name}"] = rate
    trained = counts_of(agent_index, general_index, "trained_tokens")[drawn]
    batches = np.repeat(number // packing.batch, size)
    report["share_of_loss"] = loss_shares(drawn < order.num_agent, trained, batches)
    sources = [part for part in (agent, general) if part is not None]
    return PackedMix(packed_dataset(sources, rows, found.bins), found, report)


def describe_packing(
    bins: Bins, agent: npt.NDArray[np.bool_], lengths: Index, trained: Index, batch: int
) -> dict[str, Any]:
    """Return the fill of packed rows, and the share of agent data in their batches.

    Args:
        bins: Packed rows.
        agent: (N,) bool, whether each example of the mix is agent data.
        lengths: (N,) int, tokens of each example.
        trained: (N,) int, trained tokens of each example.
        batch: Packed rows in a global batch.

    Returns:
        JSON-ready: numbers of rows, examples and tokens, rows in a last, incomplete batch, the
        fill in [0, 1], and of examples, tokens and trained tokens the share that is agent
        data: over all, and per whole batch the least, the greatest and the standard deviation.
    """
    whole = len(bins) // batch
    facts: dict[str, Any] = {
        "packed_rows": len(bins),
        "examples": len(bins.positions),
        "agent_examples": int(agent[bins.positions].sum()),
        "tokens": int(bins.tokens.sum()),
        "fill": round(bins.fill, 6),
        "batches": whole,
        "rows_in_incomplete_batch": len(bins) - whole * batch,
    }
    units = {"examples": np.ones_like(trained), "tokens": lengths, "trained_tokens": trained}
    for name, weights in units.items():
        of_agent, of_all = bins.sums(weights * agent), bins.sums(weights)
        facts[f"share_of_{name}"] = _share(of_agent.sum(), of_all.sum())
        if whole:
            parts = [v[: whole * batch].reshape(whole, batch).sum(1) for v in (of_agent, of_all)]
            shares = parts[0] / np.maximum(parts[1], 1)
            facts[f"share_of_{name}_by_batch"] = {
                "least": round(float(shares.min()), 6),
                "greatest": round(float(shares.max()), 6),
                "deviation": round(float(shares.std()), 6),
            }
    return facts


def _share(part: float, whole: float) -> float:
    return round(float(part / whole), 6) if whole else 0.0


def packed_dataset(sources: Sequence[Dataset], order: Index, bins: Bins) -> Dataset:
    """Return the bins of a mix as a dataset of rows.

    Args:
        sources: Encoded rows, one source after the other as the order counts them.
        order: (N,) int64, the row at each position of the mix.
        bins: Packing of these positions.

    Returns:
        One row per bin, in order: `input_ids` and `labels`, each (T,) int64, the
        conversations one after the other, and `seq_lengths`, the length of each. A
        conversation's first label is -100: what comes before it does not predict it.

    Raises:
        ConfigError: A source has no tokens, or the bins are of another mix.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    for source in sources:
        if missing := set(COLUMNS) - set(source.column_names):
            names = " and ".join(sorted(missing))
            raise ConfigError(f"packing: found a source without {names}")
    if len(bins) and int(bins.positions.max()) >= len(order):
        raise ConfigError(
            f"packing: found position {bins.positions.max()} in a mix of {len(order)} examples"
        )
    rows = concatenate_datasets([source.select_columns(list(COLUMNS)) for source in sources])
    members = np.split(order[bins.positions], bins.offsets[1:-1]) if len(bins) else []
    features = Features({ROWS: List(Value("int64"))})
    view = Dataset.from_dict({ROWS: members}, features=features)
    gather = Gather(uuid4().hex)
    view = view.with_transform(gather)
    gather.attach(rows)
    return view


class Gather:
    """Fetches the tokens of bins.

    Rows are attached after a dataset has taken this as its transform: `datasets` hashes a
    transform with all that it holds, which would be every token of a source in memory.

    Args:
        key: What is hashed in their place; different for different rows.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._rows: Any = None

    def attach(self, rows: Dataset) -> None:
        """Attach the rows that bins refer to, with the columns `COLUMNS`."""
        self._rows = rows.with_format("arrow")

    def __call__(self, batch: dict[str, list[list[int]]]) -> dict[str, list[Any]]:
        """Return tokens, labels and lengths of each bin in the batch."""
        bins = batch[ROWS]
        table = self._rows[[row for members in bins for row in members]]
        ids, borders = _flatten(table["input_ids"])
        labels, _ = _flatten(table["labels"])
        labels[borders[:-1]] = IGNORE_INDEX
        ends = np.concatenate([[0], np.cumsum([len(members) for members in bins])])
        result: dict[str, list[Any]] = {"input_ids": [], "labels": [], "seq_lengths": []}
        for first, last in pairwise(ends.tolist()):
            span = slice(borders[first], borders[last])
            result["input_ids"].append(ids[span])
            result["labels"].append(labels[span])
            result["seq_lengths"].append(np.diff(borders[first : last + 1]).tolist())
        return result


def _flatten(column: Any) -> tuple[Index, Index]:
    """Return the values of a list column, (T,), and its row boundaries, (R + 1,)."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    sizes = lists.value_lengths().to_numpy(zero_copy_only=False)
    return values, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
