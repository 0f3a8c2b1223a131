"""The device that a run would use here: its memory and its peak speed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

PEAKS = {
    "B200": 2250e12,  # DGX B200 datasheet: 72 PFLOP/s FP8 sparse of 8, a quarter of it each in bf16
    "H200": 989e12,  # H200 datasheet, SXM
    "H100 NVL": 835e12,  # H100 datasheet
    "H100 PCIe": 756e12,  # H100 datasheet
    "H100": 989e12,  # H100 datasheet, SXM
    "A100": 312e12,  # A100 datasheet
    "L40S": 362e12,  # L40S datasheet
    "L4": 121e12,  # L4 datasheet
    "RTX 4090": 165e12,  # Ada architecture whitepaper, float32 accumulation
    "RTX 3090": 71e12,  # GA102 architecture whitepaper, float32 accumulation
}
"""Dense bf16 tensor throughput by GPU, FLOP/s, without sparsity."""

GB = 2**30
"""Bytes of a gigabyte of memory, as drivers and data sheets of GPUs count."""


@dataclass(frozen=True)
class Device:
    """A device to train on.

    Attributes:
        kind: `cuda` or `cpu`.
        name: As its driver names it.
        memory: Bytes of its memory; on a CPU of the machine's.
        count: Number of such devices.
        peak: FLOP/s of dense bf16 matrix products, or on a CPU of float32 ones as measured;
            none if it is not known.
    """

    kind: str
    name: str
    memory: int
    count: int = 1
    peak: float | None = None


def find_device() -> Device:
    """Return the first GPU, else this machine's CPU."""
    import torch

    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return named_gpu(found.name, found.total_memory, torch.cuda.device_count())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu", f"CPU, {torch.get_num_threads()} threads", memory, peak=_cpu_speed())


def named_gpu(name: str, memory: int, count: int = 1) -> Device:
    """Return a GPU with its peak speed, by its name."""
    peak = next((speed for part, speed in PEAKS.items() if part.lower() in name.lower()), None)
    return Device("cuda", name, memory, count, peak)


def _cpu_speed() -> float:
    """Measure float32 matrix products on this CPU with torch's threads, FLOP/s; 0.1 s."""
    import torch

    size, best = 768, float("inf")
    left, right = torch.ones(size, size), torch.ones(size, size)
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return float(2 * size**3 / best)
