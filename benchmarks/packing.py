"""Packing against Axolotl's and TRL's packers: fill, time, and the agent share per batch.

    OMP_NUM_THREADS=1 python benchmarks/packing.py --agent DIR --general FILE --tokenizer DIR

Lengths are real: conversations encoded with the tokenizer, once; `--lengths FILE.npz` keeps
them. Contestants take turns in each round; what is told is the median of cpu-seconds, and its
ratio to ours. Numba's compiling, which Axolotl's packer needs once per machine, is left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agenttuning_plugin.training_data.packed_dataset import packed_dataset
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.packing import WINDOW, Bins, pack

CAPACITY, SAMPLE, EXAMPLES, ETA = 4096, 20_000, 60_000, 0.2


def measure_lengths(source: str, tokenizer: Any) -> tuple[Any, Any]:
    """Tokens and trained tokens of each conversation, whatever its length."""
    from dataset_builders.mixing.planning import Plan, counts_of
    from dataset_builders.mixing.preparation import Encoding, prepare

    encoding = Encoding(max_length=10**9)
    prepared = prepare(source, None, plan=Plan(1.0), tokenizer=tokenizer, encoding=encoding)
    tokens, trained = (
        counts_of(prepared.agent_index, None, name) for name in ("tokens", "trained_tokens")
    )
    return tokens, trained


def load_lengths(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lengths from the file, which is made if it is not there."""
    if arguments.lengths and arguments.lengths.is_file():
        with np.load(arguments.lengths) as kept:
            return dict(kept)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    found: dict[str, Any] = {}
    for name in ("agent", "general"):
        counts = measure_lengths(str(getattr(arguments, name)), tokenizer)
        found[name], found[f"{name}_trained"] = counts
    if arguments.lengths:
        np.savez(arguments.lengths, **found)
    return found


def axolotl_bins(lengths: Any, group: int = 100_000) -> list[list[int]]:
    """Axolotl's sampler over the order as it is, with its own defaults."""
    from axolotl.utils.samplers import MultipackBatchSampler

    sampler = MultipackBatchSampler(
        range(len(lengths)),
        batch_size=1,
        batch_max_len=CAPACITY,
        lengths=lengths,
        bin_size=200,
        group_size=group,
        num_processes=1,
        drop_last=False,
    )
    return [batch[0] for batch in sampler.generate_batches()]


def axolotl_kernel(lengths: Any) -> Any:
    """The compiled loop of it alone, without sampler and lists."""
    from axolotl.utils.samplers.multipack import pack_group

    return pack_group(np.asarray(lengths, dtype=np.int32), 0, CAPACITY, len(lengths), 200)


def rows_of(lengths: Any) -> Any:
    """Rows of as many tokens, for packers that move tokens."""
    from datasets import Dataset, Features, List, Value

    tokens = {name: [np.zeros(n, dtype=np.int32) for n in lengths] for name in ("input_ids",)}
    tokens["labels"] = tokens["input_ids"]
    features = Features({name: List(Value("int32")) for name in tokens})
    return Dataset.from_dict(tokens, features=features)


def trl_bfd(rows: Any) -> Any:
    """TRL's packing as shipped, which writes the packed rows."""
    from trl.data_utils import pack_dataset

    return pack_dataset(rows, CAPACITY, "bfd", {"load_from_cache_file": False})


def ours_with_tokens(rows: Any, lengths: Any) -> Any:
    """Ours, every token of every packed row fetched once."""
    view = packed_dataset([rows], np.arange(len(lengths)), pack(lengths, capacity=CAPACITY))
    for start in range(0, len(view), 64):
        view[start : start + 64]
    return view


def trl_with_tokens(rows: Any) -> Any:
    """TRL's, every token of every packed row fetched once, as its dataloader does."""
    packed = trl_bfd(rows)
    for start in range(0, len(packed), 64):
        packed[start : start + 64]
    return packed


def cpu_seconds(
    contestants: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, tuple[float, Any]]:
    """Median cpu-seconds of each, in rounds of all, and what it returned."""
    results = {name: run() for name, run in contestants.items()}  # compiles and fills caches
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: (float(np.median(times[name])), results[name]) for name in contestants}


def compare_speed(lengths: Any, rounds: int) -> None:
    """Print bins, fill and time of every packer on the same rows."""
    import datasets

    datasets.disable_progress_bars()
    rows = rows_of(lengths)
    agent = np.random.default_rng(0).random(len(lengths)) < ETA
    results = cpu_seconds(
        {
            "ours": lambda: pack(lengths, capacity=CAPACITY),
            "ours, dealt to batches of 64": lambda: pack(
                lengths, capacity=CAPACITY, batch=64, agent=agent, trained=lengths
            ),
            "axolotl multipack sampler": lambda: axolotl_bins(lengths),
            "axolotl kernel alone": lambda: axolotl_kernel(lengths),
            "trl pack_dataset bfd": lambda: trl_bfd(rows),
            "ours, tokens fetched": lambda: ours_with_tokens(rows, lengths),
            "trl, tokens fetched": lambda: trl_with_tokens(rows),
        },
        rounds,
    )
    base = results["ours"][0]
    total = int(lengths.sum())
    print(f"{len(lengths)} rows, {total} tokens, at least {-(-total // CAPACITY)} bins")
    print(f"{'packer':32}{'bins':>7}{'fill':>9}{'cpu-s':>9}{'ratio':>8}")
    for name, (seconds, bins) in results.items():
        fill = total / (len(bins) * CAPACITY)
        print(f"{name:32}{len(bins):7d}{fill:9.5f}{seconds:9.4f}{seconds / base:8.2f}")


def as_bins(bins: list[list[int]], lengths: Any) -> Bins:
    """Bins of another packer in our shape, to be measured alike."""
    sizes = np.array([len(members) for members in bins])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    positions = np.concatenate([np.asarray(members) for members in bins])
    tokens = np.add.reduceat(lengths[positions], offsets[:-1])
    return Bins(positions, offsets, tokens, CAPACITY, 0)


def shares(bins: Bins, agent: Any, weights: Any, batch: int) -> Any:
    """Share of agent data in each whole global batch."""
    whole = len(bins) // batch * batch
    parts = [bins.sums(v)[:whole].reshape(-1, batch).sum(1) for v in (weights * agent, weights)]
    return parts[0] / parts[1]


def compare_shares(found: dict[str, Any]) -> None:
    """Print how far the agent share of global batches is from that of the mix."""
    kept = {name: found[name] <= CAPACITY for name in ("agent", "general")}
    columns = [
        np.concatenate([found[f"{name}{kind}"][kept[name]] for name in kept])
        for kind in ("", "_trained")
    ]
    sizes = [int(kept[name].sum()) for name in kept]
    order = MixOrder(*sizes, ETA, 7, EXAMPLES).indices()
    lengths, trained = (column[order] for column in columns)
    agent = order < sizes[0]
    ones = np.ones(len(order))
    of_tokens = (trained * agent).sum() / trained.sum()
    print(f"\neta-mix of {sizes[0]} agent and {sizes[1]} general rows: {EXAMPLES} examples,")
    print(f"agent share {agent.mean():.4f} of examples, {of_tokens:.4f} of trained tokens")
    print(f"{'':38}{'':>9}{'examples':^20}{'trained tokens':^20}{'moved':>12}")
    heads = f"{'sd':>10}{'max dev':>10}" * 2
    print(f"{'packer':32}{'batch':>6}{'fill':>9}{heads}{'mean / max':>14}")
    for batch in (64, 8):
        for name, bins in {
            f"ours, window {WINDOW}": pack(
                lengths, capacity=CAPACITY, batch=batch, agent=agent, trained=trained
            ),
            "ours, window 2000": pack(
                lengths, capacity=CAPACITY, batch=batch, agent=agent, trained=trained, window=2000
            ),
            "ours, not dealt": pack(lengths, capacity=CAPACITY),
            "first fit, windows of 1000": as_bins(axolotl_bins(lengths, 1000), lengths),
            "first fit, all (axolotl's own)": as_bins(axolotl_bins(lengths), lengths),
        }.items():
            line = f"{name:32}{batch:6d}{bins.fill:9.5f}"
            for weights, due in ((ones, ETA), (trained, of_tokens)):
                share = shares(bins, agent, weights, batch)
                line += f"{share.std():10.4f}{abs(share - due).max():10.4f}"
            moved = abs(bins.positions - np.arange(len(bins.positions)))
            print(f"{line}{moved.mean():9.0f} / {moved.max()}")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", type=Path, help="AgentInstruct, file or folder")
    parser.add_argument("--general", type=Path, help="ShareGPT, file")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("--lengths", type=Path, help="file that keeps the lengths")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = load_lengths(arguments)
    sample = np.random.default_rng(0).choice(found["general"], SAMPLE)
    compare_speed(np.minimum(sample, CAPACITY), arguments.rounds)
    compare_shares(found)


if __name__ == "__main__":
    main()
