"""A recipe's section to the rows of a run: the part that every trainer adapter shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agenttuning_plugin.args import AgentTuningSection
from agenttuning_plugin.cache import cache_key, load_or_make
from agenttuning_plugin.packing import pack_mix
from dataset_builders.chat_templates import check_tokenizer
from dataset_builders.errors import ConfigError
from dataset_builders.mixing import BLOCK, MixOrder, mix_datasets
from dataset_builders.packing import WINDOW
from dataset_builders.preparation import Encoding, Prepared, prepare
from dataset_builders.reading import as_spec
from dataset_builders.tokens import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset

LOG = logging.getLogger(__name__)

CACHE_FOLDER = "agenttuning"
"""Folder of encoded sources within the trainer's folder of prepared data."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a run trains on.

    Attributes:
        steps: Optimizer steps, or none if the number of examples decides.
        batch: Rows in a global batch; with packing, packed rows.
        packed_length: Tokens of a packed row, or none without packing.
        window: Examples that are packed together.
    """

    steps: int | None
    batch: int
    packed_length: int | None = None
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class Mix:
    """Data of a run.

    Attributes:
        train: The eta-mix, a view on the encoded sources.
        holdout: General rows that training does not see, or none.
        steps: Optimizer steps that the run takes.
        report: What became of every record and conversation, JSON-ready.
    """

    train: Dataset
    holdout: Dataset | None
    steps: int
    report: dict[str, Any]


def load_prepared(
    section: AgentTuningSection, tokenizer: Any, encoding: Encoding, cache: Path
) -> Prepared:
    """Read and encode the section's sources, or take them from the cache.

    Raises:
        ConfigError: The tokenizer cannot be used, or a setting is out of range.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_tokenizer(tokenizer, getattr(tokenizer, "name_or_path", "") or "tokenizer")
    # A source without any share is not read, unless the loss is measured on it.
    agent = [as_spec(s.spec()) for s in section.agent] if section.eta > 0 else []
    wants_general = section.eta < 1 or encoding.holdout > 0
    general = [as_spec(s.spec()) for s in section.general] if wants_general else []

    def make() -> Prepared:
        with _Bars() as progress:
            return prepare(
                agent,
                general,
                eta=section.eta,
                tokenizer=tokenizer,
                encoding=encoding,
                on_progress=progress,
            )

    key = cache_key(agent, general, tokenizer, encoding)
    prepared, found = load_or_make(cache / CACHE_FOLDER, key, make)
    LOG.info("encoded sources %s: %s", "reused" if found else "made", cache / CACHE_FOLDER / key)
    return prepared


def load_mix(
    section: AgentTuningSection,
    tokenizer: Any,
    *,
    encoding: Encoding,
    budget: Budget,
    seed: int,
    cache: Path,
) -> Mix:
    """Make the data of a run.

    Args:
        section: The recipe's section.
        tokenizer: The tokenizer, its chat template in place.
        encoding: Settings of the rows.
        budget: How much the run trains on.
        seed: Seed of the order, unless the section names one.
        cache: The trainer's folder of prepared data.

    Raises:
        ConfigError: Neither steps nor a number of examples is known, or they disagree;
            or as `load_prepared`.
        DataError: As `load_prepared`.
        SourceNotFoundError: As `load_prepared`.
    """
    if budget.steps is None and (section.num_examples is None or budget.packed_length):
        raise ConfigError(
            "max_steps: missing, expected a number of steps (or agenttuning.num_examples): "
            "a mix has no epochs, its sources repeat at different rates"
        )
    prepared = load_prepared(section, tokenizer, encoding, cache)
    seed = seed if section.mix_seed is None else section.mix_seed
    if budget.packed_length is not None:
        return _packed(prepared, section, budget, seed)
    block = budget.batch
    num_examples, steps = _size(section, budget)
    order: dict[str, Any] = {
        "eta": section.eta,
        "num_examples": num_examples,
        "seed": seed,
        "block": block,
    }
    train = mix_datasets(prepared.agent, prepared.general, **order)
    report = {**prepared.report, "mix": describe_mix(prepared, **order)}
    return Mix(train, prepared.holdout, steps, report)


def describe_mix(
    prepared: Prepared, *, eta: float, seed: int, num_examples: int, block: int
) -> dict[str, Any]:
    """Realised shares of agent data, and how often its rows come.

    Shares of tokens are told only of encoded rows.
    """
    sizes = len(prepared.agent or ()), len(prepared.general or ())
    indices = MixOrder(*sizes, eta, seed, num_examples, block).indices()
    agent = indices < sizes[0]
    agent_rows = int(agent.sum())
    facts: dict[str, Any] = {
        "examples": num_examples,
        "agent_examples": agent_rows,
        "eta": eta,
        "seed": seed,
        "block": block,
        "share_of_examples": round(agent_rows / num_examples, 6),
        "agent_passes": round(agent_rows / sizes[0], 2) if sizes[0] else 0.0,
        "general_passes": round((num_examples - agent_rows) / sizes[1], 2) if sizes[1] else 0.0,
    }
    lengths = _lengths(prepared)
    if lengths is not None:
        for name, counts in zip(("tokens", "trained_tokens"), lengths, strict=True):
            drawn = counts[indices]
            facts[f"share_of_{name}"] = round(float(drawn[agent].sum() / drawn.sum()), 6)
    return facts


def _size(section: AgentTuningSection, budget: Budget) -> tuple[int, int]:
    """Number of examples and of optimizer steps."""
    wanted = section.num_examples
    if budget.steps is None:
        assert wanted is not None  # load_mix has checked it
        return wanted, math.ceil(wanted / budget.batch)
    needed = budget.steps * budget.batch
    _check_size(wanted, needed, budget.steps)
    return wanted or needed, budget.steps


def _check_size(wanted: int | None, needed: int, steps: int) -> None:
    if wanted is not None and wanted < needed:
        raise ConfigError(
            f"agenttuning.num_examples: found {wanted}, expected at least {needed}: max_steps "
            f"{steps} takes that many, and the trainer would start over with the same order"
        )


def _packed(prepared: Prepared, section: AgentTuningSection, budget: Budget, seed: int) -> Mix:
    """The data of a run on packed rows: the mix's examples, as many as fill them."""
    assert budget.steps is not None
    assert budget.packed_length is not None
    sizes = len(prepared.agent or ()), len(prepared.general or ())
    counts = _lengths(prepared)
    assert counts is not None  # rows are encoded

    def draw(number: int) -> Any:
        # Whole blocks, since the place of agent data in one depends on its size.
        blocks = math.ceil(number / BLOCK)
        return MixOrder(*sizes, section.eta, seed, blocks * BLOCK, BLOCK).indices()

    packed = pack_mix(
        [part for part in (prepared.agent, prepared.general) if part is not None],
        draw,
        agent_rows=sizes[0],
        lengths=counts[0],
        trained=counts[1],
        steps=budget.steps,
        batch=budget.batch,
        capacity=budget.packed_length,
        window=budget.window,
    )
    _check_size(section.num_examples, len(packed.order), budget.steps)
    facts = describe_mix(
        prepared, eta=section.eta, seed=seed, num_examples=len(packed.order), block=BLOCK
    )
    # Counted over the rows that are trained on: the last examples drawn are in none.
    facts |= {key: value for key, value in packed.report.items() if key in facts}
    report = {**prepared.report, "mix": facts, "packing": packed.report}
    return Mix(packed.rows, prepared.holdout, budget.steps, report)


def _lengths(prepared: Prepared) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Tokens and trained tokens of every row, agent rows first; none if not encoded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths: list[npt.NDArray[np.int64]] = []
    trained: list[npt.NDArray[np.int64]] = []
    for part in (prepared.agent, prepared.general):
        if part is None:
            continue
        if "labels" not in part.column_names:
            return None
        for table in part.with_format("arrow").select_columns(["labels"]).iter(batch_size=10_000):
            labels = pa.table(table)["labels"].combine_chunks()
            sizes = pc.list_value_length(labels).to_numpy().astype(np.int64)
            covered = pc.list_flatten(labels).to_numpy() != IGNORE_INDEX
            borders = np.concatenate([[0], np.cumsum(sizes)])
            before = np.concatenate([[0], np.cumsum(covered)])
            lengths.append(sizes)
            trained.append(np.diff(before[borders]))
    return np.concatenate(lengths), np.concatenate(trained)


class _Bars:
    """One progress bar per stage, on the terminal that the trainer writes to."""

    def __enter__(self) -> Callable[[str, int], None]:
        from tqdm import tqdm

        self._open: dict[str, Any] = {}

        def progress(stage: str, number: int) -> None:
            if stage not in self._open:
                self._open[stage] = tqdm(desc=stage, unit=" rows")
            self._open[stage].update(number)

        return progress

    def __exit__(self, *_: object) -> None:
        for bar in self._open.values():
            bar.close()
