"""Share of a run's time that its evaluators take."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu import models, rows, training
from benchmarks.gpu.prediction import predict
from benchmarks.gpu.training import Case, Clock, Save
from evaluators.results.evaluations import read_evaluations

RECIPE_EVERY = 250
"""Steps between evaluations in the shipped 7B recipe."""


def measure_evaluators(case: Case, folder: Path, device: str, save: Save) -> None:
    """Train with a database agent task and the general loss every few steps.

    The weights are random: an answer is as long as it may be, but is no action, so that an episode
    ends with its first turn. `share_at_oracle_turns` is an estimate for a tuned model: the agent
    task's time multiplied by the turns that the oracle takes.
    """
    every = case["every"]
    args = training.make_arguments(case, folder, device)
    args.output_dir = str(folder / "evaluated")
    task = {"type": "agent_task", "environment": "database", "num_tasks": case["tasks"]}
    evaluators = [
        {**task, "every": every, "max_new_tokens": case["new_tokens"], "batch_size": 32},
        {"type": "general_loss", "every": every},
    ]
    run = rows.packed_run(folder, args, case["length"], evaluators=evaluators)
    model = training.build(case, device)
    models.reset_peak()
    trainer = training.make_trainer("plugin", model, run, args, None)
    clock = Clock()
    trainer.callback_handler.callbacks.insert(0, clock)  # Before evaluators, so without their time.
    begun = time.perf_counter()
    trainer.train()
    total = time.perf_counter() - begun
    found = _shares(case, Path(args.output_dir), total, clock, rows.oracle_turns(folder))
    predicted = predict(case, args, device, {"evaluators": evaluators})
    save(found | {"peak_bytes": models.peak_bytes()} | predicted)


def _shares(case: Case, folder: Path, total: float, clock: Clock, turns: float) -> dict[str, Any]:
    evaluations = read_evaluations(folder)
    kinds = sorted({name for name, _ in _named(evaluations)})
    seconds = {kind: [s for name, s in _named(evaluations) if name == kind] for kind in kinds}
    every = case["every"]
    steps = [s for n, s in enumerate(clock.seconds(1), 1) if n % every]  # None follows one.
    each = {kind: median(times) for kind, times in seconds.items()}
    more = each | {"database": each["database"] * turns}
    training_time = median(steps) * RECIPE_EVERY
    return {
        "seconds": seconds,
        "step_seconds": median(steps),
        "total_seconds": total,
        "share": sum(sum(times) for times in seconds.values()) / total,
        "share_at_recipe": sum(each.values()) / (sum(each.values()) + training_time),
        "share_at_oracle_turns": sum(more.values()) / (sum(more.values()) + training_time),
        "oracle_turns": turns,
        "recipe_every": RECIPE_EVERY,
    }


def _named(evaluations: Any) -> list[tuple[str, float]]:
    return [(each["evaluator"], each["seconds"]) for each in evaluations]
