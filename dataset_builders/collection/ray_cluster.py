"""Connect to a Ray cluster for the duration of a run."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dataset_builders.collection.ray_mailbox import Mailbox
from dataset_builders.errors import ClusterError, ConfigError, MissingExtraError

_KNOCKING = 10.0  # Seconds.


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster, and the resources of a worker.

    Attributes:
        address: Of the cluster, such as "10.0.0.1:6379"; if None that of `RAY_ADDRESS`, or
            of a cluster that runs on this machine, or a new one on this machine.
        cpus: Cores reserved per worker.
    """

    address: str | None = None
    cpus: float = 1.0

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise ConfigError(f"cpus of a worker: found {self.cpus}, expected more than 0")


def post_box(ray: Any) -> Any:
    """Create a mailbox on this machine; return its handle."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(num_cpus=0, max_concurrency=100_000)(Mailbox)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))
        .remote()
    )


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Connect Ray to a cluster; disconnect on exit, unless it was connected before."""
    # No usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "ray is not installed: pip install 'agenttuning-plugin[ray]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    _reach(cluster.address)
    with _own_signals():
        try:
            ray.init(
                address=cluster.address,
                include_dashboard=None if cluster.address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            where = f"at {cluster.address}" if cluster.address else "on this machine"
            raise ClusterError(f"no Ray cluster {where}: {line_of(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Probe the address first: Ray tries an unreachable one for minutes."""
    found = re.fullmatch(r"\[?([^/]+?)\]?:(\d{1,5})", address or "")
    if found is None:
        return
    try:
        socket.create_connection((found.group(1), int(found.group(2))), _KNOCKING).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {line_of(error)}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Preserve the SIGTERM handler: Ray would make it end the process immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def line_of(error: BaseException) -> str:
    """Return type and message of an error in one line; Ray's take many."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
