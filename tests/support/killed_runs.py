"""Collections that are killed at random moments, and what became of them.

`python killed_runs.py FOLDER KILLS SEED` forks every session from a process that has
loaded everything already, kills it after a random time, and starts the next one, run after
run, until so many sessions were killed. Prints what was found as JSON, and fails with the
first thing that is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import datasets  # noqa: F401  # Loaded before the forks: sessions are to begin at once.
import openai
from endpoint import SELECT, Endpoint, Messages

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments import load_environment
from dataset_builders.rollouts.ledger import AttemptResult
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy

TASKS = 12
CONCURRENCY = 8
IDLE_ROUNDS = 3
LONGEST = 0.35  # seconds until a session is killed


def fork(child: Callable[[], None]) -> int:
    process = os.fork()
    if process:
        return process
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        child()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def serve(solutions: dict[str, list[str]], port: int) -> None:
    def reply(messages: Messages) -> str:
        said = [each["content"] for each in messages if each["role"] == "assistant"]
        question = next(each["content"] for each in messages if each["content"] in solutions)
        turn = len(said) - said.index(OPENING[1]) - 1
        return SELECT if turn < IDLE_ROUNDS else solutions[question][turn - IDLE_ROUNDS]

    endpoint = Endpoint(reply=reply, latency=0.05, keep=False)
    asyncio.run(endpoint.serve(lambda: os.write(port, f"{endpoint.port}\n".encode())))


OPENING = [message.content for message in load_environment("database").wording().opening]


def config(out: Path, url: str) -> CollectConfig:
    play = RolloutConfig(load_environment("database"), Model("m", url), max_concurrency=CONCURRENCY)
    return CollectConfig(play, out, num_tasks=TASKS)


def counted(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.replace("/v1", "/count")) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


def recorded(out: Path) -> set[str]:
    path = state_path(out, "database")
    if not path.exists():
        return set()
    with sqlite3.connect(path) as database:
        known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'responses'").fetchone()
        rows = database.execute("SELECT key FROM responses").fetchall() if known else []
    database.close()
    return {row[0] for row in rows}


def endings(out: Path) -> list[tuple[int, AttemptResult]]:
    store = SqliteRolloutLog(state_path(out, "database"))
    try:
        assert store.numbers() == (TASKS, TASKS), store.numbers()
        return list(store.endings())
    finally:
        store.close()


def killed_run(out: Path, url: str, most: int, rng: random.Random) -> tuple[int, int]:
    """Kill sessions until one comes to its end; returns kills and requests lost in flight."""
    kills = lost = 0
    paid: dict[str, int] = {}  # How often a request had been asked when its reply was durable.
    while not session(config(out, url), rng if kills < most else None):
        kills += 1
        time.sleep(0.02)  # What was sent before the kill is still being read.
        durable, now = recorded(out), counted(url)
        for key, number in paid.items():
            assert now[key] == number, "a recorded reply was asked for again"
        in_flight = sum(now.values()) - len(durable) - lost
        assert 0 <= in_flight <= CONCURRENCY, in_flight
        lost += in_flight
        paid |= {key: now[key] for key in durable if key not in paid}
    now = counted(url)
    assert sum(now.values()) == len(recorded(out)) + lost, "a session lost what it had paid"
    assert all(now[key] == number for key, number in paid.items())
    return kills, lost


def session(collection: CollectConfig, rng: random.Random | None) -> bool:
    """Whether a session came to its end; else it was killed at some moment."""
    reading, writing = os.pipe()

    def play() -> None:
        os.close(reading)
        run(collection, watch=lambda tally, engine: os.write(writing, b"x") and None)

    child = fork(play)
    os.close(writing)
    if rng is not None:
        # Some as they begin, most while they play: what a start takes depends on the machine.
        if rng.random() < 0.9:
            os.read(reading, 1)
        time.sleep(rng.uniform(0.0, LONGEST))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    if os.WIFSIGNALED(status):
        return False
    assert status == 0, "a session failed"
    return True


def main() -> None:
    folder, wanted, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    asyncio.run(warm())
    played = play(load_environment("database"), config(folder, "").chosen(), OraclePolicy())
    solutions = {
        each.messages[len(OPENING)].content: [m.content for m in each.messages if m.trained]
        for each in played
    }
    with server(solutions) as url:
        assert session(config(folder / "undisturbed", url), None)
    expected = endings(folder / "undisturbed")
    assert all(ending.trajectory.reward == 1 for _, ending in expected)
    kills = lost = runs = 0
    while kills < wanted:
        runs += 1
        with server(solutions) as url:
            more = killed_run(folder / str(runs), url, wanted - kills, rng)
        kills, lost = kills + more[0], lost + more[1]
        assert endings(folder / str(runs)) == expected, "the trajectories differ"
    print(json.dumps({"kills": kills, "runs": runs, "lost_in_flight": lost}))


async def warm() -> None:
    """Load what the client loads only when it is made, and when it first asks."""
    client = Model("m", "http://127.0.0.1:9/v1", timeout=5).connect()
    with suppress(openai.OpenAIError):
        await client.post("/chat/completions", body={}, cast_to=str)
    await client.close()


@contextmanager
def server(solutions: dict[str, list[str]]) -> Iterator[str]:
    reading, writing = os.pipe()
    process = fork(lambda: serve(solutions, writing))
    try:
        yield f"http://127.0.0.1:{int(os.read(reading, 16))}/v1"
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
