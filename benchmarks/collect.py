"""How fast the collector is, what it costs, and whether its memory grows.

`python benchmarks/collect.py` plays the database environment against a loopback server in
a process of its own:

1. 64 episodes at once, 200 ms latency: requests a second against the ideal 320, while 64
   episodes are in play, and over all, with the rise from 8 and the last stragglers;
2. CPU time of this process for each step (request, parsing, commit, environment);
3. resident memory over 10,000 episodes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from dataset_builders.collection.engine import CollectionEngine, RolloutConfig
from dataset_builders.collection.filters import TrajectoryFilter
from dataset_builders.collection.progress import CollectionProgress, WatchedLedger
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.environments import load_environment

SERVER = Path(__file__).parents[1] / "tests/support/endpoint.py"
SELECT = "Hm.\nAction: Operation\n```sql\nSELECT 1\n```"
ANSWER = "Done.\nAction: Answer\nFinal Answer: [-1]"


@contextmanager
def server(latency: float, reply: str) -> Iterator[str]:
    """Serve from a process of its own; yields the address."""
    process = subprocess.Popen(
        [sys.executable, SERVER, str(latency), reply],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SERVER.parents[2])},
    )
    assert process.stdin
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait()


def resident() -> float:
    """Resident memory in MiB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Measured:
    """A collection of tasks, looked at every half second."""

    def __init__(self, play: RolloutConfig, num_tasks: int) -> None:
        self.play, self.num_tasks = play, num_tasks
        self.memory: list[float] = []
        self.full: list[tuple[float, int]] = []  # Time and requests, while all are in play.
        self.seconds = self.cpu = 0.0
        self.steps = 0

    def run(self) -> Measured:
        """Play everything."""
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteRolloutLog(Path(folder) / "collection.sqlite")
            try:
                asyncio.run(self._run(store))
            finally:
                store.close()
        return self

    async def _run(self, store: SqliteRolloutLog) -> None:
        ids = self.play.environment.task_ids("train")[: self.num_tasks]
        store.add_tasks(ids)
        tally = CollectionProgress(len(ids), TrajectoryFilter(1.0))
        engine = CollectionEngine(self.play, WatchedLedger(store, tally))
        watching = asyncio.create_task(self._watch(engine, tally))
        begun, cpu = time.monotonic(), time.process_time()
        await engine.run(store.open_tasks())
        self.seconds, self.cpu = time.monotonic() - begun, time.process_time() - cpu
        watching.cancel()
        self.steps = tally.session.requests
        assert tally.done == len(ids)

    async def _watch(self, engine: CollectionEngine, tally: CollectionProgress) -> None:
        while True:
            self.memory.append(resident())
            if engine.in_play >= self.play.max_concurrency - 1:  # One may be changing.
                self.full.append((time.monotonic(), tally.session.requests))
            await asyncio.sleep(0.5)

    def full_rate(self) -> float:
        """Requests a second while all episodes are in play."""
        (begun, first), (ended, last) = self.full[0], self.full[-1]
        return (last - first) / (ended - begun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=640, help="of the first measurement")
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    spec = load_environment("database")
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, openai {version('openai')}")

    with server(options.latency, SELECT) as url:
        play = RolloutConfig(spec, Endpoint("m", url), max_concurrency=options.at_once)
        Measured(play, 64).run()  # Loads what is loaded once.
        found = Measured(play, options.episodes).run()
    ideal = options.at_once / options.latency
    rate = found.steps / found.seconds
    print(f"{found.steps} steps of {options.episodes} episodes in {found.seconds:.1f} s")
    full = found.full_rate()
    print(f"with {options.at_once} in play: {full:.1f} requests/s, {full / ideal:.1%} of the ideal")
    print(f"over all: {rate:.1f} requests/s, {rate / ideal:.1%} of the ideal {ideal:.0f}")
    print(f"own CPU time for each step: {found.cpu / found.steps * 1e3:.2f} ms")

    with server(0.0, ANSWER) as url:
        # Five attempts at each of 2,000 tasks: all are wrong, so all are made.
        play = RolloutConfig(spec, Endpoint("m", url), max_concurrency=16, attempts=5)
        found = Measured(play, 2000).run()
    tenth = len(found.memory) // 10
    first, last = max(found.memory[tenth : 2 * tenth]), max(found.memory[-tenth:])
    print(f"{found.steps} episodes in {found.seconds:.1f} s")
    print(f"resident memory: {first:.1f} MiB after a tenth, {last:.1f} MiB at the end")


if __name__ == "__main__":
    main()
