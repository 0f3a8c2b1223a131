"""`agenttuning evaluate` as a user meets it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.cli.evaluate import options_by_task
from agenttuning_plugin.evaluation.suite import Run, Task, run_panel
from dataset_builders.environments.alfworld.engine import missing_packages
from dataset_builders.errors import ConfigError, SourceNotFoundError
from evaluators.evaluator import EvalTarget, Evaluator, Record
from evaluators.tasks.registry import BENCHMARKS
from tests.evaluators.models.test_endpoint_refusals import solved
from tests.evaluators.tasks.general.test_gsm8k import folder as gsm8k_folder
from tests.support.endpoint import ANSWER, Endpoint, Fault, serving

pytest.importorskip("openai")

ROOT = Path(__file__).resolve().parents[3]

Command = Callable[..., tuple[int, str, str]]

MISSING = {
    task.name
    for task in BENCHMARKS
    if importlib.util.find_spec(task.place.partition(":")[0]) is None
}
"""Tasks whose module is not in this tree yet: a fault, not a reason."""


@pytest.fixture(autouse=True)
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTTUNING_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with serving(Endpoint(reply=lambda messages: ANSWER)) as endpoint:
        yield endpoint


def on(server: Endpoint, out: Path, *more: object, limit: int = 2) -> list[object]:
    return [
        *("evaluate", "--model", server.url, "--model-name", "m", "--suite", "database"),
        *("--batch-size", 1, "--limit", limit, "--out", out, *more),
    ]


def started(arguments: Sequence[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agenttuning_plugin", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def finished(out: Path, task: str = "database") -> list[bytes]:
    """Lines of finished records, without the heading and a line half written."""
    path = out / "transcripts" / f"{task}.jsonl"
    return path.read_bytes().split(b"\n")[1:-1] if path.exists() else []


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    lines = (out / "evaluations.jsonl").read_text("utf-8").splitlines()
    found = {row["evaluator"]: row for row in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def assert_one_line_error(result: tuple[int, str, str], *expected: str) -> None:
    code, _, err = result
    lines = [line for line in err.strip().splitlines() if line.strip()]
    assert code == 1
    assert lines[-1].startswith("error: "), err
    assert "Traceback" not in err
    for text in expected:
        assert text in lines[-1]


def assert_every_task_has_a_row(code: int, told: dict[str, Any], measured: set[str]) -> None:
    by_name = {row["name"]: row for row in told["tasks"]}
    assert list(by_name) == [task.name for task in BENCHMARKS]
    assert {name for name, row in by_name.items() if row["metrics"]} >= measured
    for name, row in by_name.items():
        assert bool(row["metrics"]) != bool(row["reason"]), name
        assert "\n" not in row["reason"]
        broken = row["reason"].startswith(("ModuleNotFoundError", "ImportError"))
        assert broken == (name in MISSING), row
    assert code == int(bool(MISSING))


def test_the_panel_without_any_data(run: Command, tiny_model_dir: Path) -> None:
    code, out, err = run(
        "evaluate", "--model", tiny_model_dir, "--suite", "held-in,held-out,general",
        "--limit", 2, "--max-new-tokens", 8, "--json",
    )  # fmt: skip
    assert_every_task_has_a_row(code, json.loads(out), {"database", "card_game"})
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_panel_with_data(run: Command, tiny_model_dir: Path, shared: Path) -> None:
    code, out, err = run(
        "evaluate", "--model", tiny_model_dir, "--suite", "held-in,held-out,general",
        "--limit", 2, "--data", shared / "data", "--max-new-tokens", 16, "--json",
    )  # fmt: skip
    measured = {"webshop", "database", "hotpot_qa", "card_game", "mmlu", "gsm8k"}
    if not missing_packages():  # Data alone do not do: the games need the extra.
        measured.add("alfworld")
    assert_every_task_has_a_row(code, json.loads(out), measured)
    assert "Traceback" not in err


def test_the_table_has_scores_reasons_and_no_bars(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    code, out, err = run(*on(server, tmp_path, "--suite", "mt_bench"))
    assert code == 0
    assert "database: 2 of 2" in err.splitlines()
    lines = out.splitlines()
    assert any("Database" in line and "2" in line for line in lines)
    assert any("MT-Bench" in line and "not measured" in line for line in lines)
    assert any(line.startswith("MT-Bench: needs a judge") for line in lines)
    assert "Overall" not in out  # Neither suite is whole.


def test_nothing_measured_is_no_success(run: Command, server: Endpoint, tmp_path: Path) -> None:
    given = on(server, tmp_path)
    code, out, err = run(*("mt_bench" if each == "database" else each for each in given))
    assert code == 1
    assert "MT-Bench: needs a judge" in out
    assert err.splitlines()[-1] == "nothing was measured"


def test_a_wrong_setting_of_a_task_is_no_success(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    given = on(server, tmp_path, "--suite", "gsm8k", "--option", "gsm8k.shotz=2")
    code, out, err = run(*given)
    assert code == 1
    assert "GSM8K: option 'shotz' is unknown" in " ".join(out.split())
    assert "not measured as specified: gsm8k" in err


def test_variables_of_the_chat_template_are_sent(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    given = ("--chat-template-kwargs", "enable_thinking=false", "--request", "top_k=1")
    code, _, err = run(*on(server, tmp_path, *given))
    assert code == 0, err
    sent = [request for request in server.requests if "messages" in request]
    assert sent
    assert all(
        (each["chat_template_kwargs"], each["top_k"]) == ({"enable_thinking": False}, 1)
        for each in sent
    )


def test_json_is_for_machines(run: Command, server: Endpoint, tmp_path: Path) -> None:
    code, out, _ = run(*on(server, tmp_path, "--json"))
    assert code == 0
    told = json.loads(out)
    (row,) = told["tasks"]
    assert (told["limit"], row["name"], row["suite"]) == (2, "database", "held-in")
    assert row["metrics"][row["primary"]]["n"] == 2
    assert rows(tmp_path)["database"]["num_errors"] == 0
    assert all("messages" not in record for record in rows(tmp_path)["database"]["records"])
    assert all(b'"messages"' in line for line in finished(tmp_path))


def test_the_loss_on_chat_is_measured(run: Command, tiny_model_dir: Path, tmp_path: Path) -> None:
    chat = tmp_path / "general.jsonl"
    talks = [
        {"messages": [{"role": "user", "content": "go on"}, {"role": "assistant", "content": t}]}
        for t in map("talk {}".format, range(8))
    ]
    chat.write_text("".join(json.dumps({"id": str(i), **t}) + "\n" for i, t in enumerate(talks)))
    code, out, _ = run(
        "evaluate", tiny_model_dir, "--suite", "loss", "--general", chat,
        "--num-conversations", 3, "--json",
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads(out)["tasks"]
    assert row["metrics"]["loss"]["value"] > 0
    assert row["metrics"]["loss"]["n"] == 3
    told = json.loads(run("evaluate", tiny_model_dir, "--suite", "loss,replay", "--json")[1])
    assert [row["reason"] for row in told["tasks"]] == [
        "replay: --replay-data is missing, expected trajectories",
        "loss: --general is missing, expected chat data",
    ]


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


def test_one_that_breaks_stops_no_other(
    run: Command, server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, settings: Any) -> Any:
        raise RuntimeError(f"{name}: ours\nis the fault")

    monkeypatch.setattr("evaluators.tasks.held_out.card_game.make", broken)
    given = on(server, tmp_path, "--suite", "card_game,mt_bench", "--json")
    code, out, err = run(*given)
    assert code == 1
    reasons = {row["name"]: row["reason"] for row in json.loads(out)["tasks"]}
    assert reasons["card_game"] == "RuntimeError: card_game: ours is the fault"
    assert reasons["database"] == ""
    assert "judge" in reasons["mt_bench"]
    assert "card_game" in err
    assert "mt_bench" not in err
    assert "Traceback" not in out + err
    written = (tmp_path / "errors.txt").read_text("utf-8")
    assert written.startswith("card_game\nTraceback")
    assert "in broken" in written


class Empty(Evaluator):
    """Has nothing left to measure."""

    name, suite, primary = "empty", "general", "success"

    def items(self) -> tuple[str, ...]:
        return ()

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        raise AssertionError("there is nothing to measure")


def test_no_task_left_is_a_reason(tmp_path: Path) -> None:
    tasks = [Task("empty", "Empty", "general", Empty)]
    panel = run_panel(tasks, Run(lambda: EvalTarget(None, None), out=tmp_path))
    assert panel.results["empty"].error == "empty: found no task to measure, expected at least one"
    assert panel.broken == []


def test_the_oracle_plays_without_a_model(run: Command) -> None:
    code, out, _ = run(
        "evaluate", "--oracle", "--suite", "database,mt_bench", "--limit", 2, "--json"
    )
    assert code == 0
    by_name = {row["name"]: row for row in json.loads(out)["tasks"]}
    assert by_name["database"]["metrics"]["success"]["value"] == 1.0
    assert by_name["database"]["about"]["player"] == "oracle"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--model: found 0 models"]),
        (["a", "--model", "b"], ["found 2 models"]),
        (["a", "--oracle"], ["both an oracle and a model"]),
        (["a", "--suite", "held-in,chess"], ["--suite: found 'chess'", "database", "replay"]),
        (["a", "--suite", ","], ["--suite: found no name"]),
        (["a", "--option", "backend=x"], ["'backend' for 6 tasks", "database.backend="]),
        (["a", "--option", "gsm8k.shots=1"], ["'gsm8k.shots'", "alfworld"]),
        (["{tmp}/nowhere", "--suite", "database"], ["nowhere: no such folder"]),
        (["{tmp}", "--suite", "database"], ["cannot be loaded"]),
        (["http://127.0.0.1:9/v1", "--suite", "database"], ["no list of models"]),
        (["http://127.0.0.1:9/v1", "--adapter", "x", "--suite", "database"], ["with a URL"]),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    run: Command, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    filled = [text.format(tmp=tmp_path) for text in arguments]
    assert_one_line_error(run("evaluate", *filled), *expected)


def test_options_reach_their_task() -> None:
    assert options_by_task(["shots=3"], ["gsm8k"]) == {"gsm8k": {"shots": 3}}
    assert options_by_task(["shots=3"], ["gsm8k", "replay"]) == {"gsm8k": {"shots": 3}}
    assert options_by_task(["mmlu.shots=0", "gsm8k.shots=1"], ["general"]) == {
        "mmlu": {"shots": 0},
        "gsm8k": {"shots": 1},
    }
    with pytest.raises(ConfigError, match="expected a task of mmlu"):
        options_by_task(["chess.x=1"], ["mmlu"])


@pytest.mark.parametrize("option", ["--adapter", "--chat-template", "--end-of-turn"])
def test_what_only_a_server_can_heed_is_refused_beside_its_url(run: Command, option: str) -> None:
    for command in ("evaluate", "chat"):
        given = (command, "http://127.0.0.1:9/v1", option, "llama-2", "--model-name", "m")
        code, out, err = run(*given)
        assert code == 1
        assert f"{option}: found one with a URL" in out + err
        assert "Traceback" not in err


def test_loss_on_a_server_says_that_it_needs_weights(run: Command, tmp_path: Path) -> None:
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat.write_text(json.dumps({"messages": turns}) + "\n", "utf-8")
    with serving(Endpoint(reply=lambda messages: "hm")) as endpoint:
        code, out, err = run(
            *("evaluate", endpoint.url, "--model-name", "m"),
            *("--suite", "loss", "--general", chat),
        )
    assert code == 1
    told = " ".join((out + err).split())
    assert "loss: needs the model's weights, not a server's answers" in told
    assert "chat template" not in told


def test_chat_talks_to_a_server(run: Command) -> None:
    endpoint = Endpoint(reply=lambda messages: f"{len(messages)} turns")
    with serving(endpoint):
        code, out, _ = run("chat", endpoint.url, "--model-name", "m", "--prompt", "hi")
    assert (code, out.strip()) == (0, "1 turns")
