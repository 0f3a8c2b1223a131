"""Real processes (torchrun, gloo, CPU) that share the work, and sometimes the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

FOLDER = Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "OMP_NUM_THREADS": "1"}
FAILING = {
    "measure_raises": "process 1: OSError: the world is gone",
    "generation_fails": "process 1: ",
    "not_sendable": "records of process 1 cannot be sent",
    "no_data": "process 1: FileNotFoundError: there is no such file",
}


def train(mode: str, model: Path, output: Path, processes: int = 2) -> dict[str, Any]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    output.mkdir()
    done = subprocess.run(
        [*launcher, str(FOLDER / "on_ranks.py"), mode, str(model), str(output)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads((output / "found.json").read_text("utf-8"))
    return told


@pytest.fixture(scope="module")
def alone(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train("ddp", tiny_model_dir, tmp_path_factory.mktemp("alone") / "out", processes=1)


@pytest.mark.parametrize(
    "mode",
    [
        "ddp",
        "fsdp1",
        "fsdp2",
        pytest.param("fsdp1-lora", marks=pytest.mark.slow),
        pytest.param("fsdp2-lora", marks=pytest.mark.slow),
        pytest.param("zero3", marks=pytest.mark.slow),
    ],
)
def test_two_processes_find_what_one_finds(
    mode: str, alone: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    if mode == "zero3":
        pytest.importorskip("deepspeed", reason="no deepspeed: pip install deepspeed")
    together = train(mode, tiny_model_dir, tmp_path / "out")
    assert together["same_weights"] == [True, True]
    assert alone["same_weights"] == [True]
    found = {row["name"]: row for row in together["found"][:10]}
    for row in alone["found"][:10]:
        name = row["name"]
        if name in FAILING:
            assert FAILING[name] in found[name]["error"]
            continue
        assert found[name]["error"] == row["error"] == ""
        assert found[name]["records"] == close(row["records"])
        assert found[name]["metrics"] == pytest.approx(row["metrics"], rel=1e-4, abs=1e-4)
    assert [r["error"] for r in found["brittle"]["records"] if r["error"]] == [
        "RuntimeError: the world broke"
    ]
    assert [row["error"] for row in together["found"][10:]] == ["", "", ""]
    lengths = [r["scores"]["length"] for r in found["uneven"]["records"]]
    assert max(lengths) > min(lengths) > 0
    if mode != "ddp":
        # Process 1 had nothing to do: it joined every call of process 0, which records here.
        assert found["nothing_to_do"]["calls"][0] > 3
        assert found["after_all"]["calls"][1] > 0
        assert found["no_data"]["calls"] == [0, 0]


def close(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same but for the last digits of numbers: batches differ."""
    return [
        {**record, "scores": pytest.approx(record["scores"], rel=1e-4, abs=1e-4)}
        for record in records
    ]


def test_a_lost_process_is_named(tmp_path: Path) -> None:
    """And none is left hanging. Without torchrun, which would end the others."""
    running = {
        (scenario, rank): subprocess.Popen(
            [sys.executable, script, scenario, str(rank), str(tmp_path / scenario)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for scenario in ("slow", "sleeps", "dies", "call_fails")
        for rank in (0, 1)
    }
    try:
        told = {key: process.communicate(timeout=120) for key, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert {key: process.returncode for key, process in running.items()} == {
        ("slow", 0): 0,
        ("slow", 1): 0,
        ("sleeps", 0): 1,
        ("sleeps", 1): 1,
        ("dies", 0): 1,
        ("dies", 1): 7,
        ("call_fails", 0): 1,
        ("call_fails", 1): 1,
    }
    for rank in (0, 1):
        assert "measured 4 [0, 20971520]" in told["slow", rank][0]
    waiting = told["sleeps", 0][1].splitlines()[-1]
    assert "ClusterError: lost: process 1 stood still for more than 3 s while process 0" in waiting
    assert "1 of 2 tasks finished, at ranks_apart.py:" in waiting
    assert "in _lose" in waiting
    assert "ended: lost: process 1 stands still" in told["sleeps", 1][1]
    assert "lost: process 0 lost another process (process 1: " in told["dies", 0][1]
    assert "lost: process 1 failed inside a call of the sharded model" in told["call_fails", 1][1]
    assert "MemoryError: no room" in told["call_fails", 1][1]
