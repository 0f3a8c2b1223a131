"""`agenttuning contamination`, run as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.cli import main as cli

PASSAGE = [f"word{number}" for number in range(1, 13)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    turns = [{"from": "human", "value": "x " + " ".join(PASSAGE)}, {"from": "gpt", "value": "y"}]
    rows = [{"question": " ".join(PASSAGE[:11]), "answer": "a [b] " * 10}, {"question": "short"}]
    contents = {"training": [{"conversations": turns}], "evaluation": rows}
    for name, records in contents.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return {name: str(tmp_path / f"{name}.jsonl") for name in contents}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agenttuning", "contamination", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def arguments(files: dict[str, str], *more: str) -> list[str]:
    return ["--training", files["training"], "--evaluation", files["evaluation"], *more]


def test_json(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments(files, "--json")) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["samples"] == report["clean"] + report["not_clean"] == 2
    assert (report["dirty"], report["too_short"], report["unit"]) == (0, 1, "word")
    (found,) = report["found"]
    assert (found["sample"], found["tokens"], found["contaminated"]) == (
        "evaluation.jsonl:1",
        31,
        11,
    )
    assert found["longest"] == {
        "record": "training.jsonl:1",
        "tokens": 11,
        "start": 0,
        "record_start": 2,
        "text": " ".join(PASSAGE[:11]),
    }
    assert report["sources"]["training"][0]["read"] == 1

    assert run(monkeypatch, *arguments(files, "--field", "question", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["dirty"] == 1


def test_table(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(files["evaluation"]).open("a") as handle:
        handle.write("{\n")
    assert run(monkeypatch, *arguments(files, "--field", "question", "--field", "answer")) == 0
    shown = capsys.readouterr()
    assert "35% evaluation.jsonl:1: 11 in training.jsonl:1: word1 word2 word3" in shown.out
    assert "skipped 1 records: bad_json" in shown.err


def test_a_tokenizer(
    files: dict[str, str],
    small_tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_tokenizer.save_pretrained(tmp_path / "tokenizer")
    more = ("--tokenizer", str(tmp_path / "tokenizer"), "--field", "question", "--json")
    assert run(monkeypatch, *arguments(files, *more)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unit"] == "token"
    assert report["training_tokens"] > 13
    assert report["found"][0]["share"] > 0.9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--training", "./none.jsonl"], "./none.jsonl: no such file or folder"),
        (["--evaluation", "./none.json"], "./none.json: no such file or folder"),
        (["--field", "query"], "none with text in field query"),
        (["--tokenizer", "./none"], "none"),
    ],
)
def test_errors_are_one_line(
    files: dict[str, str],
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--tokenizer" in more:
        pytest.importorskip("transformers")
    assert run(monkeypatch, *arguments(files, *more)) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error:")
    assert message in shown.err
    assert shown.err.count("\n") == 1
