"""The demo's result over several seeds: how much of its table is chance.

    python benchmarks/demo_seeds.py [--seeds 42 1 2] [--out benchmarks/results/demo_seeds.json]

Each seed trains recipes/demo.yaml as `make demo` does, with the base and the result
measured. The seed decides the order of the mix, the held-out conversations and the adapter's
initial weights; the evaluated tasks are the same ones. Prints one line a seed: database success
on unseen schemas, general loss relative to the base, each with its 95 % interval, and the
seconds of wall-clock time that training and both evaluations took.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from agenttuning_plugin.config.shipped import shipped_recipe
from agenttuning_plugin.demo.assets import quiet_environment
from agenttuning_plugin.demo.run import prepare
from agenttuning_plugin.reports.compare import compare_run
from agenttuning_plugin.reports.run_end import SUMMARY
from evaluators.results.evaluations import read_evaluations


def train(seed: int, folder: Path) -> float:
    """Train one seed into a folder; returns the seconds it took."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["-m", "axolotl.cli.train", str(shipped_recipe("demo")), f"--seed={seed}"]
    command += [f"--output_dir={folder}", f"--dataset_prepared_path={folder / 'prepared'}"]
    threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)
    environment = {**quiet_environment(), "OMP_NUM_THREADS": threads, SUMMARY: "0"}
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    return time.perf_counter() - start


def figures(folder: Path) -> dict[str, Any]:
    """The rows of the demo's table: base, result, change and its interval."""
    found = {}
    for row in compare_run(read_evaluations(folder)):
        change = row.change
        interval = {"low": change.low, "high": change.high}
        found[row.label] = {"base": change.before, "tuned": change.after, "change": interval}
    return found


def main() -> int:
    """Train all seeds and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo_seeds"))
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    options = parser.parse_args()
    prepare(Console(stderr=True))
    runs = []
    for seed in options.seeds:
        folder = options.folder / f"seed-{seed}"
        seconds = train(seed, folder)
        runs.append({"seed": seed, "seconds": round(seconds, 1), "figures": figures(folder)})
        print(json.dumps(runs[-1]), flush=True)
    versions = {name: version(name) for name in ("torch", "transformers", "axolotl", "peft")}
    result = {
        "cores": os.cpu_count(),
        "load_at_end": round(os.getloadavg()[2], 1),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "runs": runs,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
