"""Real processes (torchrun, gloo, CPU) that share the work, and sometimes the weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

from evaluators.distributed.heartbeat import Heartbeat

FOLDER = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
}
FAILING = {
    "measure_raises": "process 1: OSError: the world is gone",
    "generation_fails": "process 1: ",
    "not_sendable": "records of process 1 cannot be sent",
    "no_data": "process 1: FileNotFoundError: there is no such file",
}
Found = dict[str, dict[str, Any]]
"""By mode."""


def start(modes: str, model: Path, output: Path, processes: int = 2) -> subprocess.Popen[bytes]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with (output / f"{modes}.{processes}.log").open("wb") as log:
        return subprocess.Popen(
            [*launcher, str(FOLDER / "on_ranks.py"), modes, str(model), str(output)],
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
        )


def train(modes: str, model: Path, folder: Path) -> Found:
    """What two processes found in every mode, and what one found ("alone"), side by side."""
    outputs = {1: folder / "alone", 2: folder / "together"}
    for output in outputs.values():
        output.mkdir()
    running = [start("ddp", model, outputs[1], 1), start(modes, model, outputs[2])]
    try:
        for process in running:
            process.wait(timeout=500)
    finally:
        for process in running:
            process.kill()
    logs = "".join(log.read_text("utf-8")[-3000:] for log in folder.rglob("*.log"))
    assert [process.returncode for process in running] == [0, 0], logs
    found = {mode: read(outputs[2] / f"{mode}.json") for mode in modes.split(",")}
    return found | {"alone": read(outputs[1] / "ddp.json")}


def read(file: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return told


@pytest.fixture(scope="module")
def found(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return train("ddp,fsdp1,fsdp2", tiny_model_dir, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("mode", ["ddp", "fsdp1", "fsdp2"])
def test_two_processes_find_what_one_finds(mode: str, found: Found) -> None:
    check(found["alone"], found[mode], mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fsdp1-lora", "fsdp2-lora", "zero3"])
def test_so_they_do_with_adapters_and_zero_3(
    mode: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    if mode == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("no deepspeed: pip install deepspeed")
    found = train(mode, tiny_model_dir, tmp_path)
    check(found["alone"], found[mode], mode)


def check(alone: dict[str, Any], together: dict[str, Any], mode: str) -> None:
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
    script = str(FOLDER / "ranks_apart.py")
    running = {
        (scenario, rank): subprocess.Popen(
            [sys.executable, script, scenario, str(rank), str(tmp_path / scenario)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for scenario in ("sleeps", "dies", "call_fails")
        for rank in (0, 1)
    }
    try:
        told = {key: process.communicate(timeout=120) for key, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    assert {key: process.returncode for key, process in running.items()} == {
        ("sleeps", 0): 1,
        ("sleeps", 1): 1,
        ("dies", 0): 1,
        ("dies", 1): 7,
        ("call_fails", 0): 1,
        ("call_fails", 1): 1,
    }
    for rank in (0, 1):
        assert "measured 4 [0, 20971520]" in told["sleeps", rank][0]
    waiting = told["sleeps", 0][1].splitlines()[-1]
    lost = "ClusterError: lost: process 1 made no progress for more than 3 s while process 0"
    assert lost in waiting
    assert "1 of 2 tasks finished, at ranks_apart.py:" in waiting
    assert "in _lose" in waiting
    assert "ended: lost: process 1 has made no progress" in told["sleeps", 1][1]
    assert "lost: process 0 lost another process (process 1: " in told["dies", 0][1]
    assert "lost: process 1 failed inside a call of the sharded model" in told["call_fails", 1][1]
    assert "MemoryError: no room" in told["call_fails", 1][1]


def test_a_process_that_fell_silent_is_overdue() -> None:
    """Though the store still holds its last words, which say that all is well."""
    from torch.distributed import HashStore

    store = HashStore()
    mine, other = (Heartbeat(store, rank, 2, timeout=0.4) for rank in (0, 1))
    with mine.watching("quiz"), mine.waiting():
        time.sleep(0.2)
        assert mine.stalled() == ""
        with other.watching("quiz"), other.waiting():
            time.sleep(0.8)
            assert mine.stalled() == ""
        time.sleep(0.5)
        assert mine.stalled() == (
            "quiz: process 1 made no progress for more than 0.4 s while process 0 waited "
            "(process 1: "
            "waits, then silent)"
        )
    mine.timeout = 60.0
    with mine.watching("quiz"):  # What was said at the last one is no sign of life at this one.
        assert "has not started" in mine.last_status()


def test_calls_of_the_model_by_others_are_signs_of_life(tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from torch.distributed import HashStore

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    watchdog = Heartbeat(HashStore(), 0, 2, timeout=60.0)
    ids = model.dummy_inputs["input_ids"]
    before = watchdog._since
    with watchdog.following(model):
        model.generate(ids, max_new_tokens=2)
    during = watchdog._since
    model(ids)
    assert before < during == watchdog._since
