from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from dataset_builders.encoding.parallel import WorkerLostError, in_order


def slow_first(number: int) -> tuple[int, int]:
    time.sleep(0.05 if number == 0 else 0)
    return number, os.getpid()


def test_results_come_in_order_from_other_processes() -> None:
    results = list(in_order(slow_first, range(40), 2))
    assert [number for number, _ in results] == list(range(40))
    pids = {pid for _, pid in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {pid for _, pid in in_order(slow_first, range(3), 1)} == {os.getpid()}


def test_a_stream_is_not_read_ahead_of_its_results() -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            taken = number
            yield number

    results = in_order(slow_first, numbers(), 2)
    for done in range(20):
        next(results)
        assert taken <= done + 5
    results.close()  # type: ignore[attr-defined]


def fail(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def test_an_error_comes_where_its_result_would() -> None:
    results = in_order(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed_is_an_error_not_a_hang() -> None:
    with pytest.raises(WorkerLostError, match=r"^one of 2 processes was killed"):
        list(in_order(die, range(10), 2))
