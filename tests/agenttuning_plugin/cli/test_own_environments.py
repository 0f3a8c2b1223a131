"""Environments of a user's own wherever a command takes one: text worlds in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.own_environments import write_desk, write_guess

Run = Callable[..., tuple[int, str, str]]

ACT = "        if int(action) == self.number:"
BEGIN = '        self.number = int(task_id.split("-")[2])'
SCORE = 'exit_reason="answered", score=1.0'


def one_line(err: str) -> str:
    (line,) = err.strip().splitlines()
    assert "Traceback" not in line
    return line


def test_it_is_validated_collected_evaluated_and_viewed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_guess(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("env", "validate", "./guess.py:Guess", "--num-tasks", 3)
    assert (code, err) == (0, "")
    assert out == "ok     guess train: oracle 1, idle agent 0 on 3 tasks\n"
    given = ["--env", "./guess.py:Guess", "--oracle", "--out", tmp_path / "out", "--json"]
    code, out, err = run("collect", *given, "--option", "top=24")
    assert code == 0, err
    report = json.loads(out)
    assert (report["environment"], report["done"], report["kept"]) == ("guess", 6, 6)
    assert report["settings"]["reference"] == "guess.py:Guess"
    assert report["settings"]["environment options"] == {"top": 24}
    card = json.loads((tmp_path / "out" / "card" / "guess.json").read_text())
    assert (card["settings"]["Reference"], card["rows"]) == ("guess.py:Guess", 6)
    assert "| Reference | guess.py:Guess |" in (tmp_path / "out" / "README.md").read_text()
    code, out, err = run("collect", *given, "--option", "top=24")  # It resumes: nothing is open.
    assert (code, json.loads(out)["session"]["ended"]) == (0, 0)
    code, _, err = run("collect", *given)
    assert code == 1
    assert "environment options" in one_line(err).replace("--option", "environment options")
    code, out, err = run("view", tmp_path / "out")
    assert (code, out.split()[0]) == (0, "6"), err


def test_a_collection_notices_that_the_file_has_changed(run: Run, tmp_path: Path) -> None:
    given = ["--env", write_guess(tmp_path), "--oracle", "--out", tmp_path / "out", "--json"]
    code, _, err = run("collect", *given, "--num-tasks", 2)
    assert code == 0, err
    write_guess(tmp_path, "round_limit = 4", "round_limit = 5")
    code, _, err = run("collect", *given)
    assert code == 1
    found = one_line(err)
    assert "environment code: this collection was started with" in found
    assert found.endswith("or set --accept-changed-code to resume all the same")
    code, out, err = run("collect", *given, "--accept-changed-code")
    assert (code, json.loads(out)["session"]["ended"]) == (0, 4), err
    code, out, err = run("collect", *given)  # What was accepted is the new state.
    assert (code, json.loads(out)["kept"]) == (0, 6), err


def test_it_is_a_suite_and_options_begin_with_its_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_guess(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["--oracle", "--suite", "./guess.py:Guess,database", "--limit", 2, "--json"]
    options = ["--option", "guess.top=12", "--option", "guess.split=dev"]
    code, out, err = run("evaluate", *given, *options, "--out", tmp_path / "out")
    assert code == 0, err
    shown = {row["name"]: row["suite"] for row in json.loads(out)["tasks"]}
    assert shown == {"database": "held-in", "guess": "own"}
    lines = (tmp_path / "out" / "transcripts" / "guess.jsonl").read_text().splitlines()
    heading, *records = map(json.loads, lines)
    assert heading["environment"] == "guess.py:Guess"
    assert len(heading["code"]) == 16  # Of the file: an evaluation is not resumed with another.
    assert len(records) == 2
    assert all("from 1 to 12" in json.dumps(record) for record in records)
    code, out, _ = run("evaluate", *given, "--option", "guess.tops=12")
    assert code == 1
    assert "option 'tops' is unknown; known: top, split" in json.loads(out)["tasks"][-1]["reason"]
    code, _, err = run("evaluate", "--oracle", "--suite", "./guess.py:Ges")
    assert code == 1
    assert one_line(err) == f"error: {tmp_path}/guess.py: found no 'Ges', did you mean Guess?"
    write_guess(tmp_path, '{"train": 1,', '{"training": 1,', "partial")
    given = ["--oracle", "--suite", "database,./partial.py:Guess", "--limit", 1, "--json"]
    code, out, _ = run("evaluate", *given, "--option", "guess.split=train")
    assert code == 1  # Although the other task was measured.
    assert "task_ids raised KeyError: 'train'" in json.loads(out)["tasks"][-1]["reason"]
    write_guess(tmp_path, name="other")
    code, _, err = run("evaluate", "--oracle", "--suite", "./guess.py:Guess,./other.py:Guess")
    assert code == 1
    assert one_line(err).endswith("lead to one name, expected one for each")


def test_its_split_for_evaluation_is_guarded(run: Run, tmp_path: Path) -> None:
    given = ["--oracle", "--out", tmp_path / "out"]
    code, _, err = run("collect", "--env", write_guess(tmp_path), *given, "--split", "test")
    assert code == 1
    assert one_line(err) == ("error: split 'test' is for evaluation; only 'train' may be collected")
    limit = "    round_limit = 4\n"
    closed = write_guess(tmp_path, limit, limit + "    held_out = True\n", "closed")
    code, _, err = run("collect", "--env", closed, *given)
    assert code == 1
    assert "closed.py:Guess: declared held out (held_out = True)" in one_line(err)
    code, _, err = run("evaluate", "--oracle", "--suite", closed, "--limit", 1, "--json")
    assert code == 0, err
    code, _, err = run("instructions", "self-instruct", "--env", closed, "--model", "m", *given[1:])
    assert code == 1
    assert "expected os or database" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_what_it_prints_reaches_neither_json_nor_terminal(run: Run, tmp_path: Path) -> None:
    noise = 'print("noise " * 200_000)'
    place = write_guess(tmp_path, BEGIN, f"        {noise}\n{BEGIN}")
    path = Path(place.partition(":")[0])
    text = path.read_text().replace("STARTS = {", f"{noise}\nSTARTS = {{")
    text = text.replace(
        "    def task_ids(self, split):", f"    def task_ids(self, split):\n        {noise}"
    )
    path.write_text(
        text.replace("        self.top = top", f"        {noise}\n        self.top = top")
    )
    code, out, err = run("env", "validate", place, "--num-tasks", 2, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["guess"]["ok"]
    code, out, err = run("collect", "--env", place, "--oracle", "--out", tmp_path / "o", "--json")
    assert (code, json.loads(out)["kept"]) == (0, 6)
    assert "noise" not in err


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (ACT, f"        {{}}['x']\n{ACT}", "KeyError: 'x'"),
        (BEGIN, f"        [][0]\n{BEGIN}", "IndexError: list index out of range"),
        (SCORE, 'exit_reason="answered", score=float("nan")', "score: found nan, expected 0 to 1"),
        (BEGIN, f"        import sys; sys.exit(4)\n{BEGIN}", "its process died (exit code 4"),
    ],
    ids=["step", "reset", "score", "exit"],
)
def test_one_that_breaks_is_reported_with_its_task(
    run: Run, tmp_path: Path, old: str, new: str, error: str
) -> None:
    place = write_guess(tmp_path, old, new)
    code, out, err = run("env", "validate", place, "--num-tasks", 2, "--json")
    assert (code, err) == (1, "")
    failures: dict[str, str] = json.loads(out)["guess"]["failures"]
    assert set(failures) == {"guess-train-1", "guess-train-4"}
    assert all(error in text for text in failures.values()), failures


def test_a_broken_task_is_counted_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    broken = "        if self.number == 3:\n            raise ValueError(self.number)\n"
    place = write_guess(tmp_path, ACT, broken + ACT)
    given = ["--env", place, "--oracle", "--out", tmp_path / "out", "--json"]
    code, out, err = run("collect", *given)
    assert code == 0, err
    report = json.loads(out)
    assert (report["kept"], report["dropped"]) == (5, {"environment_error": 1})


def test_one_that_hangs_is_stopped_at_its_call_limit(run: Run, tmp_path: Path) -> None:
    limit = "    round_limit = 4\n"
    place = write_guess(tmp_path, limit, limit + "    call_limit = 0.8\n")
    path = Path(place.partition(":")[0])
    path.write_text(path.read_text().replace(ACT, f"        import time; time.sleep(600)\n{ACT}"))
    code, out, _ = run("env", "validate", place, "--num-tasks", 1, "--json")
    assert code == 1
    failures = json.loads(out)["guess"]["failures"]
    assert "step: no answer within 0.8 s; its process is killed" in failures["guess-train-1"]


def test_list_has_installed_ones_and_says_what_is_wrong_with_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_guess(tmp_path, name="guessing_list")
    info = tmp_path / "guessing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guessing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agenttuning.environments]\nguess = guessing_list:Guess\nlost = guessing_list:No\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, out, _ = run("env", "list", "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert found["guess"]["tasks"] == {"train": 6, "dev": 6, "test": 6}
    assert found["lost"]["missing"] == "guessing_list: found no 'No'"
    assert found["database"]["ready"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('{"id": "b", "price": 5}', '{"id": "a", "price": 5}', "id 'a' is there twice"),
        ('{"id": "b", "price": 5}', '{"price": 5}', "task 1: id: found None, expected a text"),
        ('{"id": "c", "price": 7}', '{"id": "b", "price": 7}', "are one task by their id 'b'"),
        ('{"id": "c", "price": 7}', '{"id": "c", "price": 5}', "one task by their content"),
        ("self.fixed = price", "self.fixed = {}[price]", "__init__ raised KeyError: 0 (desk.py:1"),
        ('"""Pay an amount."""', "", "tool Desk.pay: found no docstring"),
        ("    def score(", "    def scores(", "lacks score"),
    ],
    ids=["twice", "no id", "shared id", "shared content", "init", "no schema", "no score"],
)
def test_a_tool_environment_that_is_wrong_is_one_line_in_both_commands(
    run: Run, tmp_path: Path, old: str, new: str, message: str
) -> None:
    place = write_desk(tmp_path, old, new)
    out = tmp_path / "out"
    for command in (["env", "validate", place], ["collect", "--env", place, "--oracle"]):
        code, text, err = run(*command, *(["--out", out] if command[0] == "collect" else []))
        assert (code, text) == (1, "")
        assert message in one_line(err)
    assert not out.exists()


def test_a_collection_without_a_report_can_be_viewed(run: Run, tmp_path: Path) -> None:
    given = ["--env", write_desk(tmp_path), "--oracle", "--out", tmp_path / "out"]
    assert run("collect", *given)[0] == 0
    (tmp_path / "out" / "collection" / "desk.json").unlink()  # As if it had been killed.
    code, out, err = run("view", tmp_path / "out")
    assert (code, out.split()[0]) == (0, "2"), err
