"""Runs cells of `training_cells` with the real trainers, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.resume_recorder import GRADIENTS, RECORD
from tests.support.resume_recorder import KILL as KILL_AT
from tests.support.training_cells import Cell, write_config

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
PROGRAMS = {"axolotl": "resume_axolotl.py", "trl": "train_trl.py"}

Line = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        lines: What each rank trained on, a micro batch a line.
        output: Folder of the trained model.
    """

    lines: tuple[tuple[Line, ...], ...]
    output: Path

    def in_order(self) -> list[tuple[int, int, int, Line]]:
        """Step, micro batch, rank and line, in the order of the mix."""
        lines = [
            (line["step"], line["micro"], rank, line)
            for rank, lines in enumerate(self.lines)
            for line in lines
        ]
        return sorted(lines, key=lambda line: line[:3])

    def batches(self) -> list[tuple[int, int, list[int], str]]:
        """Micro batches in the order of the mix."""
        return [
            (step, micro * len(self.lines) + rank, line["shape"], line["batch"])
            for step, micro, rank, line in self.in_order()
        ]

    def rows(self) -> dict[int, list[str]]:
        """Hashes of each step's rows, in order."""
        found: dict[int, list[str]] = {}
        for step, _, _, line in self.in_order():
            found.setdefault(step, []).extend(line["rows"])
        return found

    def curve(self) -> list[float]:
        """Each step's loss: the sum over micro batches, the mean over processes."""
        found: dict[int, float] = {}
        for step, _, _, line in self.in_order():
            found[step] = found.get(step, 0.0) + float.fromhex(line["loss"]) / len(self.lines)
        return [found[step] for step in sorted(found)]

    def logged(self) -> list[float]:
        """Losses that the trainer itself logged."""
        states = sorted(self.output.glob("checkpoint-*/trainer_state.json"), key=_step_of)
        history = json.loads(states[-1].read_text("utf-8"))["log_history"]
        return [entry["loss"] for entry in history if "loss" in entry]

    def weights(self) -> dict[str, Any]:
        """What was trained, as it was saved at the end."""
        from safetensors.numpy import load_file

        names = ("adapter_model.safetensors", "model.safetensors")
        path = next(p for p in (self.output / name for name in names) if p.exists())
        return dict(load_file(path))

    def gradient(self, step: int) -> dict[str, Any]:
        """Gradient of a step, counted from 0, by parameter."""
        from safetensors.numpy import load_file

        return dict(load_file(self.output.parent / f"gradients.{step}"))


def _step_of(path: Path) -> int:
    return int(path.parent.name.rpartition("-")[2])


def start(
    command: Sequence[str], folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command of one thread a process and without accelerator, to its end."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
        **variables,
    }
    return subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def environment_of(record: Path, kill: tuple[int, int] | None) -> dict[str, str]:
    """What tells the recorder where to write and when to die."""
    return {RECORD: str(record), KILL_AT: ":".join(map(str, kill or ()))}


def read_record(record: Path, ranks: int = 1) -> tuple[tuple[Line, ...], ...]:
    """Read what each rank trained on; ranks that never came so far are left out."""
    files = [record.with_name(f"{record.name}.{rank}") for rank in range(ranks)]
    return tuple(
        tuple(json.loads(line) for line in file.read_text("utf-8").splitlines())
        for file in files
        if file.exists()
    )


def run_jobs(program: str, jobs: list[dict[str, Any]], folder: Path) -> list[int]:
    """Run jobs of `resume_recorder.fork_each` one after another; returns their exit codes."""
    (folder / "runs.json").write_text(json.dumps(jobs), "utf-8")
    done = start([sys.executable, str(HERE / program), "runs.json"], folder, {})
    assert done.returncode == 0, done.stderr[-3000:]
    # Axolotl 0.21 logs to standard output, too.
    return [int(line) for line in done.stdout.splitlines() if re.fullmatch(r"-?\d+", line)]


def run_cells(cells: Iterable[Cell], inputs: dict[str, str], folder: Path) -> dict[Cell, Run]:
    """Train each cell; one that is killed is started again, and both its records are kept.

    Returns:
        Runs by cell: of one that was killed, what the second process trained on.
    """
    cells, jobs = list(cells), []
    folder.mkdir(exist_ok=True)
    for cell in cells:
        place = folder / cell.name
        config = write_config(cell, inputs, place)
        for kill in [cell.kill, None] if cell.kill else [None]:
            variables = environment_of(place / ("killed" if kill else "record"), kill)
            variables[GRADIENTS] = str(place / "gradients")
            log = str(place / "log")
            job = {"config": str(config), "log": log, "environment": variables}
            jobs.append(job | {"ranks": cell.ranks, "trainer": cell.trainer, "dies": bool(kill)})
    for trainer, program in PROGRAMS.items():
        mine = [job for job in jobs if job["trainer"] == trainer]
        if not mine:
            continue
        codes = run_jobs(program, mine, folder)
        wanted = [-9 if job["dies"] else 0 for job in mine]
        wrong = [job for job, code, want in zip(mine, codes, wanted, strict=True) if code != want]
        assert not wrong, f"{codes}: " + Path(wrong[0]["log"]).read_text("utf-8")[-5000:]
    return {
        cell: Run(
            read_record(folder / cell.name / "record", cell.ranks), folder / cell.name / "out"
        )
        for cell in cells
    }
