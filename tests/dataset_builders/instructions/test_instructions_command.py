"""The commands as a user meets them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from agenttuning_plugin.cli import main as cli
from dataset_builders.instructions.database import DatabaseTasks
from dataset_builders.instructions.task_kinds import shipped_seeds
from tests.support.endpoint import Messages
from tests.support.served import Serve

TABLE = {"name": "numbers", "columns": ["number"], "rows": [["3"], ["4"]]}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: object) -> tuple[int, str, str]:
        words = [*map(str, arguments)]
        command = words if words[0] == "collect" else ["instructions", *words]
        monkeypatch.setattr(sys, "argv", ["agenttuning", *command])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run_command


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    pytest.importorskip("rapidfuzz", reason="pip install 'agenttuning-plugin[collect]'")
    DatabaseTasks().write(tmp_path, shipped_seeds(DatabaseTasks()))
    return tmp_path / "pairs.jsonl"


def test_derive_tells_what_it_did_and_what_comes_next(run: Run, pairs: Path) -> None:
    code, out, _ = run("derive", pairs, "--out", pairs.parent / "out")
    assert code == 0
    assert "kept 5" in out
    assert "agenttuning collect --env database --data" in out
    code, out, _ = run("derive", pairs, "--out", pairs.parent / "out", "--templates", "--json")
    assert json.loads(out)["records"] == {"kept": 5}


def test_evaluation_tasks_are_kept_out(run: Run, pairs: Path) -> None:
    _, out, _ = run("derive", pairs, "--out", pairs.parent / "a", "--json")
    known = json.loads(out)["guarded_by"]
    _, out, _ = run("derive", pairs, "--out", pairs.parent / "a", "--evaluation", pairs, "--json")
    report = json.loads(out)
    assert report["records"] == {"shares_text_with_evaluation": 5}
    assert report["guarded_by"] == known + 5


def test_self_instruct_through_the_command(run: Run, serve: Serve, tmp_path: Path) -> None:
    kind = DatabaseTasks()
    made = "\n\n".join(kind.show(record) or "" for record in kind.train_split(None)[:3])
    writer, _ = serve(lambda messages: made)
    own = tmp_path / "own.md"
    own.write_text(kind.show(shipped_seeds(kind)[0]) or "", "utf-8")
    prices = tmp_path / "prices.yaml"
    prices.write_text("writer: {input: 1, output: 2}\n", "utf-8")
    arguments = (
        *("self-instruct", "--env", "database", "--model", "writer", "--seeds", own),
        *("--base-url", writer.endpoint.base_url, "--out", tmp_path / "out", "--num-tasks", 1),
        *("--prices", prices, "--max-cost", 5),
    )
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "1 requests" in out
    assert "kept" in out or "similar" in out


def test_collect_adds_thoughts(run: Run, serve: Serve, tmp_path: Path) -> None:
    def reply(messages: Messages) -> str:
        if "<transcript>" in messages[-1]["content"]:
            return "I add them up."
        said = sum(each["role"] == "assistant" for each in messages)
        operation = "Action: Operation\n```sql\nSELECT 7\n```"
        return operation if said == 1 else "Action: Answer\nFinal Answer: [7]"

    pair = {"question": "Three and four?", "sql": "SELECT 3 + 4", "tables": [TABLE]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair), "utf-8")
    writer, endpoint = serve(reply)
    code, out, err = run(
        *("collect", "--env", "database", "--data", tmp_path / "pairs.jsonl", "--add-thoughts"),
        *("--model", "writer", "--base-url", writer.endpoint.base_url, "--out", tmp_path / "out"),
    )
    assert code == 0, err
    assert "Turns whose thought was added afterwards" in out
    text = (tmp_path / "out/jsonl/db.jsonl").read_text("utf-8")
    assert text.count("I add them up.") == 2
    assert len(endpoint.requests) == 4


def test_the_thoughts_of_all_sessions_are_counted(run: Run, serve: Serve, tmp_path: Path) -> None:
    def reply(messages: Messages) -> str:
        if "<transcript>" in messages[-1]["content"]:
            return "Action: Answer" if "Operation" not in messages[-1]["content"] else "I add."
        said = sum(each["role"] == "assistant" for each in messages)
        operation = "I look.\nAction: Operation\n```sql\nSELECT 7\n```"
        return operation if said == 1 else "Action: Answer\nFinal Answer: [7]"

    asked = ("Three and four?", "What do three boats and four carts make together?")
    pairs = [{"question": each, "sql": "SELECT 3 + 4", "tables": [TABLE]} for each in asked]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), "utf-8")
    writer, endpoint = serve(reply)
    for number in (1, 2, 2):
        code, out, err = run(
            *("collect", "--env", "database", "--data", tmp_path / "pairs.jsonl"),
            *("--model", "writer", "--base-url", writer.endpoint.base_url, "--add-thoughts"),
            *("--out", tmp_path / "out", "--num-tasks", number),
        )
        assert code == 0, err
        assert f"Turns that had a thought                 │ {number}" in out
        report = json.loads((tmp_path / "out/collection/database.json").read_text("utf-8"))
        assert report["thoughts"] == {"had_thought": number, "written": number}
        readme = (tmp_path / "out/README.md").read_text("utf-8")
        assert f"| Turns whose thought was added afterwards | {number} |" in readme
    assert len(endpoint.requests) == 6


def test_self_instruct_counts_what_it_cannot_read_and_says_what_stopped_it(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    writer, _ = serve(lambda messages: "I would rather not.")
    own = tmp_path / "own.md"
    own.write_text(DatabaseTasks().show(shipped_seeds(DatabaseTasks())[0]) or "", "utf-8")
    code, out, err = run(
        *("self-instruct", "--env", "database", "--model", "writer", "--seeds", own),
        *("--base-url", writer.endpoint.base_url, "--out", tmp_path / "out", "--num-tasks", 3),
    )
    assert code == 3, err
    assert "unusable replies: no_task 3" in out
    assert "stopped: request_limit" in out
    assert f"asking writer at {writer.endpoint.base_url}" in err
    report = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert report["unusable"] == {"no_task": 3}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("collect", "--env", "database", "--out", "o", "--oracle", "--add-thoughts"), "--oracle"),
        pytest.param(
            *(("derive", "nowhere.jsonl", "--out", "o"), "nowhere.jsonl"),
            marks=pytest.mark.skipif(
                find_spec("rapidfuzz") is None, reason="pip install 'agenttuning-plugin[collect]'"
            ),
        ),
        (("derive", "p", "--out", "o", "--model", "m", "--templates"), "--model, --templates"),
        (("self-instruct", "--env", "webshop", "--model", "m", "--out", "o"), "os or database"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...],
    complaint: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 1
    assert complaint in err
    assert len(err.strip().splitlines()) == 1


def test_every_option_has_a_help_text(run: Run) -> None:
    for command in ("derive", "self-instruct"):
        code, out, _ = run(command, "--help")
        assert code == 0
        for line in out.splitlines():
            # A row of an option; "--" within a wrapped help text begins none.
            if re.match(r"│ [* ] {1,3}--", line) and "--help" not in line:
                words = line.strip("│ ").split("  ")
                assert len([word for word in words if word.strip()]) > 1, line
