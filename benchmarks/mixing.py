"""Mixing: speed, exactness and evenness against `datasets.interleave_datasets`.

    python benchmarks/mixing.py [--rounds 3] [--out benchmarks/results/mixing.json]

Token rows of AgentInstruct's and ShareGPT's numbers (1,866 and 58,134, one token each:
neither contestant looks into rows) and the paper's budget: 2,000 steps of 64 examples, eta
0.2. Processor seconds of this process, the median of the rounds, which alternate between the
contestants. `interleave_datasets` stops when its sources are used up and cannot be asked for
128,000 examples; it is timed on the 71,000 or so that it gives.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from datasets import Dataset, interleave_datasets

from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.order import MixOrder, Pool, mix_datasets

AGENT, GENERAL, ETA, STEPS, BATCH = 1_866, 58_134, 0.2, 2_000, 64
EXAMPLES = STEPS * BATCH
MANY = 1_500_000  # positions

POOLS = (Pool(np.arange(3_510), 0.2), Pool(np.arange(3_510, GENERAL), 0.8))
KINDS: dict[str, dict[str, Any]] = {
    "stratified": {},
    "iid": {"mode": "iid"},
    "stages": {"eta": (QuotaStage(0, 0.5), QuotaStage(EXAMPLES // 2, 0.1))},
    "nested weights": {"general_pools": POOLS},
}


def order(num_examples: int, **settings: Any) -> MixOrder:
    """An order of the benchmark's sizes."""
    return MixOrder(
        AGENT, GENERAL, **({"eta": ETA, "seed": 7, "num_examples": num_examples} | settings)
    )


def rows(start: int, number: int) -> Dataset:
    """Rows whose token tells which they are."""
    return Dataset.from_dict({"input_ids": [[start + n] for n in range(number)]})


def timed(make: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor and wall seconds, and what was made."""
    cpu, wall = time.process_time(), time.perf_counter()
    made = make()
    return time.process_time() - cpu, time.perf_counter() - wall, made


def evenness(agent: Any) -> dict[str, float]:
    """Agent rows in batches of 64: share, standard deviation, fewest, most."""
    counts = agent[: len(agent) // BATCH * BATCH].reshape(-1, BATCH).sum(axis=1)
    return {
        "share": float(agent.mean()),
        "sd": float(counts.std()),
        "fewest": int(counts.min()),
        "most": int(counts.max()),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    agent, general = rows(0, AGENT), rows(AGENT, GENERAL)
    contestants: dict[str, tuple[int, Callable[[], Any]]] = {
        name: (MANY, lambda kind=kind: order(MANY, **kind).indices())
        for name, kind in KINDS.items()
    }
    contestants["a mix as a data set"] = (
        EXAMPLES,
        lambda: mix_datasets(agent, general, order(EXAMPLES)),
    )
    share = [ETA, 1 - ETA]
    contestants["interleave_datasets"] = (
        0,
        lambda: interleave_datasets(
            [agent, general], share, seed=7, stopping_strategy="all_exhausted"
        ),
    )
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    made: dict[str, Any] = {}
    for _ in range(settings.rounds):
        for name, (_, make) in contestants.items():
            cpu, wall, made[name] = timed(make)
            times[name].append((cpu, wall))

    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "speed": {}}
    print(f"{'':24}{'positions':>12}{'cpu-s':>9}{'wall s':>9}{'a cpu-s':>13}{'ratio':>8}")
    peer = len(made["interleave_datasets"]) / median(c for c, _ in times["interleave_datasets"])
    for name, (number, _) in contestants.items():
        number = number or len(made[name])
        cpu, wall = (median(t[i] for t in times[name]) for i in (0, 1))
        line = {"positions": number, "cpu_s": cpu, "wall_s": wall, "ratio": number / cpu / peer}
        result["speed"][name] = line
        rate = number / cpu
        print(f"{name:24}{number:12,}{cpu:9.3f}{wall:9.3f}{rate:13,.0f}{rate / peer:8.1f}")

    print(f"\n{'agent rows in 64':24}{'share':>12}{'sd':>9}{'fewest':>9}{'most':>13}")
    for name in ("stratified", "iid", "interleave_datasets"):
        drawn = made[name]
        if name == "interleave_datasets":
            drawn = np.array(drawn["input_ids"]).ravel()
        even = evenness(drawn < AGENT)
        result.setdefault("evenness", {})[name] = even
        print(f"{name:24}{even['share']:12.5f}{even['sd']:9.3f}{even['fewest']:9}{even['most']:13}")

    one = order(10**9)
    cpu, _, _ = timed(lambda: [one.rows(np.array([p])) for p in range(0, 10**9, 10**6)])
    result["random_access_ms"] = cpu
    print(f"\none position anywhere in 10^9: {cpu:.2f} ms (1,000 taken)")
    if settings.out:
        settings.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
