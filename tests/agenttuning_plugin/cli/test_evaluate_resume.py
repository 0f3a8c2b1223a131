"""`agenttuning evaluate`, interrupted, killed and run again on the same folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import SourceNotFoundError
from tests.agenttuning_plugin.cli.test_evaluate_command import (
    Command,
    assert_one_line_error,
    finished,
    on,
    rows,
)
from tests.evaluators.models.test_endpoint_refusals import solved
from tests.evaluators.tasks.general.test_gsm8k import folder as gsm8k_folder
from tests.support.endpoint import ANSWER, Endpoint, Fault, serving

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_data")


ROOT = Path(__file__).resolve().parents[3]


def started(arguments: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agenttuning_plugin", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_killed_and_started_again_it_measures_what_is_missing(run: Command, tmp_path: Path) -> None:
    slow = Endpoint(reply=lambda messages: ANSWER, latency=0.3)
    with serving(slow) as server:
        process = started(on(server, tmp_path, limit=6))
        wait_until(lambda: len(finished(tmp_path)) >= 2)
        process.kill()
        process.communicate()
        before, calls = finished(tmp_path), server.counts.total()
        assert 2 <= len(before) < 6
        server.latency = 0.0
        code, out, _ = run(*on(server, tmp_path, "--json", limit=6))
    assert code == 0
    assert json.loads(out)["tasks"][0]["metrics"]["success"]["n"] == 6
    # To the byte: what was finished is neither asked for nor written again.
    assert finished(tmp_path)[: len(before)] == before
    assert len(finished(tmp_path)) == 6
    assert server.counts.total() - calls == 6 - len(before)


def test_killed_on_single_questions_it_loses_those_in_flight(run: Command, tmp_path: Path) -> None:
    """One answer never comes: the eleven others are finished, on disk, and not asked for again."""
    held = [True]
    endpoint = Endpoint(
        reply=solved, hold=lambda messages: held[0] and "are 5 apples" in messages[-1]["content"]
    )
    data = gsm8k_folder(tmp_path, 12)
    with serving(endpoint) as server:
        task = ["--model", server.url, "--model-name", "m", "--suite", "gsm8k"]
        options = ["--option", f"gsm8k.data={data}", "--batch-size", 4, "--out", tmp_path / "out"]
        process = started(["evaluate", *task, *options])
        try:
            wait_until(lambda: len(finished(tmp_path / "out", "gsm8k")) >= 11)
        finally:
            process.kill()
            process.communicate()
        before, calls = finished(tmp_path / "out", "gsm8k"), server.counts.total()
        assert (len(before), calls) == (11, 12)
        held[0] = False
        code, out, _ = run("evaluate", *task, *options, "--json")
    assert code == 0
    (row,) = json.loads(out)["tasks"]
    assert (row["metrics"]["accuracy"]["value"], row["metrics"]["accuracy"]["n"]) == (1.0, 12)
    assert finished(tmp_path / "out", "gsm8k")[:11] == before
    assert server.counts.total() - calls == 1


def test_interrupted_it_says_so_and_goes_on_later(run: Command, tmp_path: Path) -> None:
    slow = Endpoint(reply=lambda messages: ANSWER, latency=0.3)
    with serving(slow) as server:
        process = started(on(server, tmp_path, limit=6))
        wait_until(lambda: len(finished(tmp_path)) >= 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, (out, err)
        assert err.strip().splitlines()[-1].startswith("stopped: run the same command")
        assert "Traceback" not in out + err
        before = finished(tmp_path)
        server.latency = 0.0
        assert run(*on(server, tmp_path, limit=6))[0] == 0
    assert finished(tmp_path)[: len(before)] == before
    assert len(finished(tmp_path)) == 6


def test_the_limit_may_grow_and_shrink(run: Command, server: Endpoint, tmp_path: Path) -> None:
    for limit, asked in ((2, 2), (4, 4), (3, 4)):
        assert run(*on(server, tmp_path, limit=limit))[0] == 0
        assert server.counts.total() == asked
        assert len(rows(tmp_path)["database"]["records"]) == limit


def test_another_model_is_kept_out_of_the_folder(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    assert run(*on(server, tmp_path))[0] == 0
    before = (tmp_path / "evaluations.jsonl").read_bytes()
    other = run(*on(server, tmp_path), "--model-name", "other", "--suite", "card_game")
    assert_one_line_error(other, "found results of 'm' (model differ)", "--out")
    shorter = run(*on(server, tmp_path, "--max-new-tokens", 3))
    assert_one_line_error(shorter, "max_new_tokens differ")
    # Other settings of one task: its results stay, and it is told.
    code, out, _ = run(*on(server, tmp_path, "--option", "backend=sqlite"))
    assert code == 1
    assert "holds another evaluation (backend differ)" in out
    assert (tmp_path / "evaluations.jsonl").read_bytes() == before
    assert server.counts.total() == 2


def test_a_server_that_dies_midway_loses_nothing(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_builders.endpoints.retrying._LONGEST_BACK_OFF", 0.02)
    dead = Endpoint(reply=lambda m: ANSWER, fault=lambda n: Fault(drop=True) if n >= 3 else None)
    with serving(dead) as server:
        code, out, err = run(*on(server, tmp_path, "--suite", "card_game", "--json", limit=5))
        assert code == 1
        reasons = [row["reason"] for row in json.loads(out)["tasks"]]
        assert all("m at http://127.0.0.1" in reason for reason in reasons)
        assert "run the same command to resume" in reasons[0]
        assert "database, card_game" in err
        assert "Traceback" not in out + err
        assert not (tmp_path / "errors.txt").exists()
        assert len(finished(tmp_path)) == 3
        assert rows(tmp_path)["database"]["error"] == reasons[0]
    with serving(Endpoint(reply=lambda messages: ANSWER)) as server:  # on another port
        assert run(*on(server, tmp_path, limit=5))[0] == 0
        assert server.counts.total() == 2
    assert len(rows(tmp_path)["database"]["records"]) == 5
    assert rows(tmp_path)["database"]["error"] == ""


def test_a_rerun_that_cannot_measure_keeps_what_was_measured(
    server: Endpoint, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*on(server, tmp_path))[0] == 0
    before = rows(tmp_path)["database"]

    def absent(name: str, settings: Any) -> Any:
        raise SourceNotFoundError("database: no data here today")

    monkeypatch.setattr("evaluators.tasks.held_in.held_in_evaluator", absent)
    code, out, _ = run(*on(server, tmp_path, "--json"))
    assert json.loads(out)["tasks"][0]["reason"] == "database: no data here today"
    assert code == 1  # nothing was measured, this time
    assert rows(tmp_path)["database"] == before


def test_a_place_that_cannot_be_written_is_told(
    server: Endpoint, run: Command, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert_one_line_error(run(*on(server, file)), f"{file}: cannot be written")
    assert run(*on(server, tmp_path / "out"))[0] == 0
    (tmp_path / "page").mkdir()
    told = run("view", tmp_path / "out", "--out", tmp_path / "page")
    assert_one_line_error(told, "page: cannot be written")
