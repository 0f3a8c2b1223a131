"""Groups of trained tokens by source and task, and their layout in each micro-batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from agenttuning_plugin.training_data.built_mix import BuiltMix
from agenttuning_plugin.training_data.packed_dataset import ROWS
from dataset_builders.mixing.planning import counts_of
from dataset_builders.sources.loading import ResolvedSource

if TYPE_CHECKING:
    import pyarrow as pa

LOG = logging.getLogger("axolotl.agenttuning")

MOST = 32
"""Most tasks, or sources, of one side that are shown."""

Index = npt.NDArray[np.int64]


class TokenGroups:
    """Which group the tokens of every trained row belong to.

    A cell is a combination of side, source and task; a group is a union of cells, so that a token
    belongs to one cell and to several groups, such as "agent" and "agent/os".

    Attributes:
        names: Names of the groups: "agent", "agent/TASK", and "agent/source/NAME" if the side has
            several sources; the same for general data.
        members: (G, C) bool, which cells each group consists of.

    Args:
        mix: The rows of a run.
    """

    def __init__(self, mix: BuiltMix) -> None:
        order, prepared = mix.planned.order, mix.prepared
        agent = prepared.agent_index if order.num_agent else None
        general = prepared.general_index if order.num_general else None
        sides = [("agent", agent), ("general", general)]
        found = [_cells(side, index, mix.sources.get(side, ())) for side, index in sides if index]
        rows = mix.planned.row_sequence()
        self._ends = np.arange(1, len(rows) + 1)
        if mix.packing is not None:
            bins = mix.train_dataset.with_format("arrow")[:][ROWS].combine_chunks()
            rows = bins.flatten().to_numpy()
            self._ends = np.cumsum(bins.value_lengths().to_numpy())
        self._packed = mix.packing is not None
        cells = np.concatenate(
            [each + sum(len(c) for _, c in found[:n]) for n, (each, _) in enumerate(found)]
        )
        labels = [label for _, each in found for label in each]
        self.names = _names(labels)
        self.members = np.array([[name in label for label in labels] for name in self.names])
        self._cells = cells[rows]
        self._tokens = counts_of(agent, general, "tokens")[rows]
        self._trained = counts_of(agent, general, "trained_tokens")[rows]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return int(self.members.shape[1])

    def __len__(self) -> int:
        """Return the number of rows of the training data."""
        return len(self._ends)

    def counts(self, rows: Index) -> npt.NDArray[np.float64]:
        """Count trained tokens and conversations by cell.

        Args:
            rows: Numbers of rows of the training data.

        Returns:
            (2, C): trained tokens by the index, and conversations. The first token of a
            conversation is never predicted, so up to one token of each may not be trained.
        """
        found = np.zeros((2, self.num_cells))
        for row in rows.tolist():
            part = self._members(row)
            np.add.at(found[0], self._cells[part], self._trained[part])
            np.add.at(found[1], self._cells[part], 1)
        return found

    def layout(self, rows: Index, shape: Sequence[int]) -> npt.NDArray[np.int64] | None:
        """Return the cell of each token of a micro-batch.

        Args:
            rows: Numbers of its rows.
            shape: (B, T), the shape of its labels.

        Returns:
            (B, T), arbitrary where a row is filled up; None if the rows do not have this shape.
        """
        parts = [self._members(row) for row in rows.tolist()]
        if not self._packed:
            cells = self._cells[[part.start for part in parts]]
            return np.tile(cells[:, None], (1, shape[1])) if len(parts) == shape[0] else None
        found = [np.repeat(self._cells[part], self._tokens[part]) for part in parts]
        if shape[0] == 1:
            found = [np.concatenate(found)]
        if len(found) != shape[0] or max(map(len, found)) > shape[1]:
            return None
        layout = np.zeros(tuple(shape), dtype=np.int64)
        for number, row in enumerate(found):
            layout[number, : len(row)] = row
        return layout

    def _members(self, row: int) -> slice:
        return slice(self._ends[row - 1] if row else 0, self._ends[row])


def _cells(
    side: str, index: pa.Table, sources: Sequence[ResolvedSource]
) -> tuple[Index, list[frozenset[str]]]:
    """Return the cell of each row of a side, and the groups that each cell is part of."""
    pairs = list(
        zip(index["entry"].to_pylist(), map(task_name, index["task"].to_pylist()), strict=True)
    )
    kinds = sorted(set(pairs))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    entries = sorted({entry for entry, _ in kinds})
    names = _source_names(entries, sources) if len(entries) > 1 else {}
    labels = []
    for entry, task in kinds:
        parts = [side, *([f"{side}/{task}"] if task else [])]
        parts += [f"{side}/source/{names[entry]}"] if names else []
        labels.append(frozenset(parts))
    return np.array([numbers[pair] for pair in pairs], dtype=np.int64), labels


def task_name(name: str) -> str:
    """Return a task's name as part of a log key, without characters that trackers split at."""
    return "_".join(name.replace("/", "_").split())


def _source_names(entries: Sequence[int], sources: Sequence[ResolvedSource]) -> dict[int, str]:
    """Return a name for each source: its file or data set, with its number if not unique."""
    stems = {
        entry: task_name(PurePosixPath(str(sources[entry].spec.path)).stem)
        if entry < len(sources)
        else str(entry)
        for entry in entries
    }
    twice = len(set(stems.values())) < len(stems)
    return {entry: f"{stem}_{entry}" if twice else stem for entry, stem in stems.items()}


def _names(labels: Sequence[frozenset[str]]) -> tuple[str, ...]:
    """Return the groups' names in order, without kinds of which there are too many."""
    names = sorted(set().union(*labels))
    kinds: dict[str, list[str]] = {}
    for name in names:
        side, slash, rest = name.partition("/")
        kind = f"{side}/source" if rest.startswith("source/") else f"{side}{slash}"
        kinds.setdefault(kind, []).append(name)
    shown: list[str] = []
    for kind, found in kinds.items():
        if len(found) <= MOST:
            shown += found
        else:
            LOG.info(
                "loss by source: %s has %d parts, more than %d: only their sum is logged",
                *(kind.rstrip("/"), len(found), MOST),
            )
    return tuple(sorted(shown))
