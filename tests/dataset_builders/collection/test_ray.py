from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Read when Ray is imported: addresses are those of the loopback, nothing is reported, and
# no token is put into the home folder.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"
pytest.importorskip("ray")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agenttuning_plugin.cli.collect import _cluster
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.ray_cluster import Cluster
from dataset_builders.collection.ray_engine import MAX_LOSSES, RayEngine, _cut
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.reply import Reply
from dataset_builders.environments import load_environment
from dataset_builders.errors import ClusterError, ConfigError, EndpointError
from dataset_builders.rollouts.ledger import AttemptResult, Turn
from tests.support.endpoint import Endpoint as Server
from tests.support.endpoint import Fault, serving

LOOPBACK = "127.0.0.1"
QUICK_TO_NOTICE = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}


def quiet_agents(patch: pytest.MonkeyPatch) -> None:
    """Let nodes start `quiet_agent` in place of the dashboard's."""
    from ray._private import ray_constants, services

    name = "_build_python_executable_command_memory_profileable"
    original = getattr(services, name)

    def build(component: str, *given: Any, **more: Any) -> list[str]:
        command: list[str] = original(component, *given, **more)
        agent = component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT
        quiet = Path(__file__).parents[2] / "support/quiet_agent.py"
        return [*command, str(quiet)] if agent else command

    patch.setattr(services, name, build)


class Nodes:
    """A cluster of a head without cores and of nodes with one each, on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as LocalCluster

        self._cluster = LocalCluster(
            initialize_head=True,
            head_node_args={
                **self._settings(0),
                "include_dashboard": False,
                "no_monitor": True,
                "_system_config": QUICK_TO_NOTICE,
            },
        )
        self.nodes: list[Any] = []
        self._workers: dict[str, int] = {}
        self.address = self._cluster.address

    def _settings(self, cpus: int) -> dict[str, Any]:
        return {
            "num_cpus": cpus,
            "node_ip_address": LOOPBACK,
            "object_store_memory": 80_000_000,
            "include_log_monitor": False,
        }

    def add(self) -> None:
        self.nodes.append(self._cluster.add_node(**self._settings(1)))

    def warm_up(self) -> None:
        """A worker on each node, that all take part from the beginning."""

        def begin() -> int:
            importlib.import_module("dataset_builders.collection.engine")
            return os.getpid()

        asked = {}
        for node in self.nodes:
            there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            asked[node.node_id] = ray.remote(begin).options(scheduling_strategy=there).remote()
        self._workers = {name: ray.get(reference) for name, reference in asked.items()}

    def kill(self) -> None:
        """Kill a node with what runs on it; else its worker would live on for a moment."""
        node = self.nodes.pop()
        os.kill(self._workers[node.node_id], signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    patch = pytest.MonkeyPatch()
    quiet_agents(patch)
    cluster = Nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield cluster
    finally:
        cluster.close()
        patch.undo()


@pytest.fixture
def two(nodes: Nodes) -> Nodes:
    while len(nodes.nodes) < 2:
        nodes.add()
    while ray.cluster_resources().get("CPU", 0) != 2:
        time.sleep(0.1)
    nodes.warm_up()
    return nodes


class Watched:
    """A store that tells of every ending, and remembers what was refused."""

    def __init__(
        self, store: SqliteRolloutLog, told: Callable[[int], None] = lambda number: None
    ) -> None:
        self.store, self.told = store, told
        self.endings: list[tuple[str, bool]] = []

    async def turns(self, task_id: str, attempt: int, purpose: str = "act") -> Any:
        return await self.store.turns(task_id, attempt, purpose)

    async def reply(self, key: str) -> Reply | None:
        return await self.store.reply(key)

    async def record(self, turn: Turn) -> bool:
        return await self.store.record(turn)

    async def end(self, ending: AttemptResult) -> bool:
        new = await self.store.end(ending)
        self.endings.append((ending.trajectory.task_id, new))
        self.told(len(self.endings))
        return new


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRolloutLog]:
    store = SqliteRolloutLog(tmp_path / "state.sqlite")
    yield store
    store.close()


def run(engine: RayEngine, store: SqliteRolloutLog) -> None:
    asyncio.run(engine.run(store.open_tasks()))


def each_ended_once(store: SqliteRolloutLog, ledger: Watched, tasks: list[str]) -> None:
    assert store.numbers() == (len(tasks), len(tasks))
    assert sorted(task_id for task_id, new in ledger.endings if new) == sorted(tasks)
    assert [ending.trajectory.task_id for _, ending in store.endings()] == tasks


def kill_when_all_play(nodes: Nodes, ledger: Watched, engine: RayEngine) -> None:
    """Kill a node as soon as each has ended some of its tasks, and has others to end."""

    def told(endings: int) -> None:
        ended = {task_id for task_id, _ in ledger.endings}
        chunks = [set(chunk.tasks) for chunk, _ in engine._running.values()]
        if len(nodes.nodes) == 2 == len(chunks) and all(
            chunk & ended and chunk - ended for chunk in chunks
        ):
            nodes.kill()

    ledger.told = told


def answer(messages: list[dict[str, Any]]) -> str:
    """Three statements, then an answer; the task's text makes the requests differ."""
    said = sum(message["role"] == "assistant" for message in messages) - 1
    if said < 3:
        return f"I look.\nAction: Operation\n```sql\nSELECT {said}\n```"
    return 'Action: Answer\nFinal Answer: ["none"]'


@pytest.mark.timeout(300)
def test_a_killed_node_costs_no_task_of_the_oracle(two: Nodes, store: SqliteRolloutLog) -> None:
    spec = load_environment("database")
    tasks = list(spec.task_ids("train")[:240])
    store.add_tasks(tasks)
    ledger = Watched(store)
    engine = RayEngine(RolloutConfig(spec, max_concurrency=16), ledger)
    kill_when_all_play(two, ledger, engine)
    run(engine, store)
    each_ended_once(store, ledger, tasks)
    assert engine.lost >= 1
    assert all(ending.trajectory.reward == 1.0 for _, ending in store.endings())


@pytest.mark.timeout(300)
def test_a_killed_node_costs_only_requests_in_flight(two: Nodes, store: SqliteRolloutLog) -> None:
    spec = load_environment("database")
    tasks = list(spec.task_ids("train")[:80])
    store.add_tasks(tasks)
    ledger = Watched(store)
    concurrency = 16
    with serving(Server(answer, latency=0.05)) as server:
        play = RolloutConfig(spec, Endpoint("m", server.url), max_concurrency=concurrency)
        engine = RayEngine(play, ledger)
        kill_when_all_play(two, ledger, engine)
        run(engine, store)
    each_ended_once(store, ledger, tasks)
    assert engine.lost >= 1
    again = sum(count - 1 for count in server.counts.values())
    assert len(server.counts) == 4 * len(tasks)
    assert again <= concurrency
    assert store.spent().requests == len(server.counts)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_suspended_tasks_stay_open_and_are_taken_up_again(
    two: Nodes, store: SqliteRolloutLog
) -> None:
    spec = load_environment("database")
    tasks = list(spec.task_ids("train")[:40])
    store.add_tasks(tasks)
    with serving(Server(answer, latency=0.05)) as server:
        play = RolloutConfig(spec, Endpoint("m", server.url), max_concurrency=8)
        engine = RayEngine(
            play, Watched(store, lambda number: engine.suspend("enough") if number == 8 else None)
        )
        run(engine, store)
        assert engine.stopped == "enough"
        assert 8 <= store.numbers()[1] < len(tasks)
        ledger = Watched(store)
        run(RayEngine(play, ledger), store)
    assert store.numbers() == (len(tasks), len(tasks))
    assert all(new for _, new in ledger.endings)
    # Nothing was in flight when the second run began: nothing is paid twice.
    assert set(server.counts.values()) == {1}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_user_has_to_mend_comes_through(two: Nodes, store: SqliteRolloutLog) -> None:
    spec = load_environment("database")
    store.add_tasks(list(spec.task_ids("train")[:8]))
    denied = Fault(status=401, body=json.dumps({"error": {"message": "no such key"}}).encode())
    with serving(Server(answer, fault=lambda number: denied)) as server:
        engine = RayEngine(RolloutConfig(spec, Endpoint("m", server.url)), Watched(store))
        with pytest.raises(EndpointError, match="no such key"):
            run(engine, store)
    assert store.numbers() == (8, 0)


@pytest.mark.timeout(300)
def test_a_task_that_is_always_refused_alone_ends_by_what_other_chunks_are_answered(
    two: Nodes, store: SqliteRolloutLog
) -> None:
    spec = load_environment("database")
    tasks = list(spec.task_ids("train")[:2])
    store.add_tasks(tasks)
    order: list[str] = []

    def fault(number: int) -> Fault | None:
        asked = server.requests[-1]["messages"][2]["content"]
        order.append(asked) if asked not in order else None
        return Fault(500, body=b'{"error": {"message": "odd"}}') if asked == order[0] else None

    with serving(Server(answer, fault, latency=0.2)) as server:
        endpoint = Endpoint("m", server.url, tries=2, back_off=0.01)
        ledger = Watched(store)
        # Two chunks of one task each: the odd one's worker sees no answer at all.
        run(RayEngine(RolloutConfig(spec, endpoint, max_concurrency=2), ledger), store)
    each_ended_once(store, ledger, tasks)
    reasons = sorted(ending.trajectory.exit_reason for _, ending in store.endings())
    assert reasons == ["answered", "endpoint_error"]


@pytest.mark.timeout(300)
def test_several_tasks_that_are_refused_in_a_row_stop_a_cluster_too(
    two: Nodes, store: SqliteRolloutLog
) -> None:
    spec = load_environment("database")
    store.add_tasks(list(spec.task_ids("train")[:8]))
    odd = Fault(400, body=b'{"error": {"message": "odd"}}')
    with serving(Server(answer, lambda number: odd)) as server:
        play = RolloutConfig(spec, Endpoint("m", server.url), max_concurrency=2)
        with pytest.raises(EndpointError, match=r"odd.*3 different tasks failed in a row"):
            run(RayEngine(play, Watched(store)), store)
    assert store.numbers() == (8, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_task_that_kills_its_worker_ends_alone(two: Nodes, store: SqliteRolloutLog) -> None:
    spec = load_environment("database")
    tasks = list(spec.task_ids("train")[:4])
    store.add_tasks(tasks)

    # Nested, so that it travels by value: workers do not have this module.
    async def finish(client: Any, trajectory: Any) -> Any:
        if trajectory.task_id == deadly:
            import os

            os._exit(1)
        return trajectory

    deadly = tasks[2]
    with serving(Server(answer)) as server:
        play = RolloutConfig(spec, Endpoint("m", server.url), max_concurrency=4, min_reward=0.0)
        ledger = Watched(store)
        engine = RayEngine(play, ledger, finish)
        run(engine, store)
    each_ended_once(store, ledger, tasks)
    ended = {ending.trajectory.task_id: ending.trajectory for _, ending in store.endings()}
    assert ended.pop(deadly).exit_reason == "environment_error"
    assert {trajectory.exit_reason for trajectory in ended.values()} == {"answered"}
    assert MAX_LOSSES <= engine.lost <= MAX_LOSSES + 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_collects_on_a_cluster(two: Nodes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agenttuning_plugin", "collect", "--env", "database"]
    command += ["--oracle", "--num-tasks", "12", "--out", str(tmp_path), "--json"]
    command += ["--engine", "ray", "--ray-address", two.address]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert (report["done"], report["kept"], report["stopped"]) == (12, 12, "")


def test_engine_and_address_go_together() -> None:
    assert _cluster("local", None) is None
    assert _cluster("ray", "10.0.0.1:6379") == Cluster("10.0.0.1:6379")
    with pytest.raises(ConfigError, match="expected local or ray"):
        _cluster("slurm", None)
    with pytest.raises(ConfigError, match="needs --engine ray"):
        _cluster("local", "10.0.0.1:6379")


def test_chunks_hold_every_task_once() -> None:
    for tasks, workers, concurrency in ((1, 4, 64), (40, 4, 64), (1000, 3, 7), (5000, 2, 64)):
        names = tuple(map(str, range(tasks)))
        chunks = _cut(names, workers, concurrency)
        assert tuple(task for chunk in chunks for task in chunk.tasks) == names
        assert len(chunks) >= min(tasks, workers)


def test_a_cluster_that_is_not_there(store: SqliteRolloutLog) -> None:
    if ray.is_initialized():
        ray.shutdown()
    spec = load_environment("database")
    store.add_tasks(list(spec.task_ids("train")[:1]))
    engine = RayEngine(RolloutConfig(spec), store, cluster=Cluster(f"{LOOPBACK}:9"))
    with pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:9: ConnectionRefused"):
        run(engine, store)
    with pytest.raises(ConfigError, match="more than 0"):
        Cluster(cpus=0)
