"""Serialise a mix's order to JSON and restore it.

The order is a pure function of a few numbers and of its pools, which are groups of rows. A pool is
written as the index column that defines it and the labels that it selects, so that a reader sees
"task: db", and the row numbers follow from the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.errors import DataError
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.order import MixOrder, Pool

if TYPE_CHECKING:
    import pyarrow as pa

    from dataset_builders.mixing.permutation import Index

_COLUMNS = ("task", "model", "entry", "source")
_PROBED = 1 << 16  # positions; computing them takes some 50 ms


def order_record(
    order: MixOrder, agent: pa.Table | None, general: pa.Table | None
) -> dict[str, Any]:
    """Return everything that an order depends on, JSON-ready.

    Args:
        order: The order.
        agent: Index of the agent rows, see `row_index.INDEX`.
        general: Index of the general rows.
    """
    return {
        "num_agent": order.num_agent,
        "num_general": order.num_general,
        "stages": [[stage.start, stage.share] for stage in order.stages],
        "seed": order.seed,
        "num_examples": order.num_examples,
        "block": order.block,
        "mode": order.mode,
        "agent_pools": [_pool_record(pool, agent) for pool in order.agent_pools],
        "general_pools": [_pool_record(pool, general) for pool in order.general_pools],
        "probe": _probe(order),
    }


def order_of(
    record: Mapping[str, Any], agent: pa.Table | None, general: pa.Table | None
) -> MixOrder:
    """Rebuild the order that a record describes.

    Args:
        record: From `order_record`.
        agent: Index of the agent rows that the record was made with.
        general: The same of the general rows.

    Raises:
        DataError: The rows of the indices are not those of the record, or this version of
            the package draws another order from it.
    """
    order = MixOrder(
        num_agent=record["num_agent"],
        num_general=record["num_general"],
        eta=tuple(QuotaStage(start, share) for start, share in record["stages"]),
        seed=record["seed"],
        num_examples=record["num_examples"],
        block=record["block"],
        mode=record["mode"],
        agent_pools=tuple(_pool(pool, agent, "agent") for pool in record["agent_pools"]),
        general_pools=tuple(_pool(pool, general, "general") for pool in record["general_pools"]),
    )
    if _probe(order) != record["probe"]:
        raise DataError(
            "order: its rows are not those that were drawn when it was written; "
            "use the version of agenttuning-plugin that the manifest names"
        )
    return order


def _pool_record(pool: Pool, index: pa.Table | None) -> dict[str, Any]:
    rows = np.asarray(pool.rows, dtype=np.int64)
    facts = {"weight": float(pool.weight), "rows": len(rows), "sha256": _digest(rows)}
    for column in _COLUMNS if index is not None and len(index) else ():
        labels = _labels(index, column)
        taken = np.unique(labels[rows])
        if np.array_equal(np.flatnonzero(np.isin(labels, taken)), rows):
            return {"column": column, "labels": taken.tolist(), **facts}
    return {"numbers": rows.tolist(), **facts}


def _pool(record: Mapping[str, Any], index: pa.Table | None, side: str) -> Pool:
    if "numbers" in record:
        rows = np.asarray(record["numbers"], dtype=np.int64)
    else:
        chosen = np.isin(_labels(index, record["column"]), record["labels"])
        rows = np.flatnonzero(chosen).astype(np.int64)
    if _digest(rows) != record["sha256"]:
        raise DataError(
            f"order: {side} pool {record.get('labels', '')}: found {len(rows):,} rows that are "
            f"not the {record['rows']:,} of the manifest"
        )
    return Pool(rows, record["weight"])


def _labels(index: Any, column: str) -> np.ndarray[Any, Any]:
    return np.asarray(index[column].to_numpy(zero_copy_only=False), dtype=object)


def _digest(rows: Index) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _probe(order: MixOrder) -> dict[str, Any]:
    """Hash the rows at positions spread over the whole order."""
    count = min(order.num_examples, _PROBED)
    positions = np.arange(count, dtype=np.int64) * order.num_examples // count
    agent, rows = order.rows(positions)
    found = np.where(agent, rows, rows + order.num_agent)
    return {"positions": count, "sha256": _digest(found)}
