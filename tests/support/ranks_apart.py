"""Two processes of which one is lost in an evaluator, but one that is only slow is not.

    ranks_apart.py SCENARIO RANK STORE

SCENARIO is sleeps, stops, dies or call_fails.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from evaluators.distributed.process_group import ranks_here
from evaluators.evaluator import EvalTarget, Evaluator, Record
from evaluators.models.sharded import ShardedForward
from evaluators.runner import run_evaluator

TIMEOUT = 3.0


class Lost(Evaluator):
    name = "lost"
    suite = "general"
    primary = "score"

    def __init__(self, scenario: str) -> None:
        self._scenario = scenario

    def items(self) -> tuple[str, ...]:
        return ("0", "1", "2", "3")

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        for item in items:
            if item == "3":
                self._lose(subject)
            if self._scenario == "slow" and item == "1":
                for _ in range(6):  # Far longer than the timeout, but it goes on.
                    time.sleep(TIMEOUT / 3)
                    assert subject.ranks
                    subject.ranks.watchdog.ping()
            finished({"item": item, "scores": {"score": 1.0}, "error": ""})

    def _lose(self, subject: EvalTarget) -> None:
        if self._scenario == "sleeps":
            while True:
                time.sleep(1)
        if self._scenario == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._scenario == "dies":
            os._exit(7)
        if self._scenario == "call_fails":
            assert subject.in_step
            subject.in_step(input_ids=torch.zeros(1), fails=True)


class Summing(torch.nn.Module):
    """Like a sharded model: a call is a collective of all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, input_ids: Any, fails: bool = False, **_: Any) -> Any:
        if fails:
            raise MemoryError("no room")
        part = input_ids.float().sum()
        dist.all_reduce(part)
        return part


def main(scenario: str, rank: int, store: str) -> None:
    dist.init_process_group(
        "gloo", f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    ranks = ranks_here(TIMEOUT)
    assert ranks
    subject = EvalTarget(
        model=None,
        tokenizer=None,
        rank=ranks.rank,
        world_size=ranks.size,
        gather=ranks.gather,
        ranks=ranks,
        in_step=ShardedForward(Summing(), ranks) if scenario == "call_fails" else None,
    )
    if scenario == "sleeps":
        result = run_evaluator(Lost("slow"), subject)
        large = ranks.gather([os.urandom(rank * 20 * 2**20)])
        print("measured", result.metrics["score"].n, [len(part) for part in large], flush=True)
    run_evaluator(Lost(scenario), subject)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
