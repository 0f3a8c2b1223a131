"""`agenttuning env new`: what it writes is valid as it is, and goes from collection to rows."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.endpoint import Endpoint, Messages, serving

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "class_name", "kind"),
    [("support", "Support", ()), ("number_game", "NumberGame", ("--text",))],
)
def test_it_is_accepted_as_it_is_and_its_test_passes(
    run: Run, folder: Path, name: str, class_name: str, kind: tuple[str, ...]
) -> None:
    code, out, err = run("env", "new", name, *kind)
    assert (code, err) == (0, "")
    reference = f"./{name}.py:{class_name}"
    assert out.splitlines() == [
        f"wrote {name}.py and test_{name}.py; next:",
        f"agenttuning env validate {reference}",
        f"agenttuning collect --env {reference} --oracle --out {name}_data",
        f"agenttuning build --agent {name}_data --general CHAT --num-examples 1000 --out mix",
    ]
    text = (folder / f"{name}.py").read_text()
    assert len(text.splitlines()) < 60
    assert max(map(len, text.splitlines())) <= 100
    ast.parse(text)
    code, out, err = run("env", "validate", reference, "--num-tasks", 4, "--split", "test")
    assert (code, err) == (0, "")
    assert out == f"ok     {name} test: oracle 1, idle agent 0 on 4 tasks\n"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:anyio", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout


def test_it_replaces_nothing(run: Run, folder: Path) -> None:
    (folder / "test_support.py").write_text("mine")
    code, out, err = run("env", "new", "support")
    assert (code, out) == (1, "")
    assert err == "error: test_support.py: exists already, expected a new file\n"
    assert [path.name for path in folder.iterdir()] == ["test_support.py"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("database", "name: found 'database', which is taken; choose another"),
        ("my-desk", "name: found 'my-desk', expected letters, digits and _"),
        ("../desk", "name: found '../desk', expected letters"),
        ("class", "name: found 'class', expected snake case, such as my_desk"),
        ("MyDesk", "name: found 'MyDesk', expected snake case, such as my_desk"),
    ],
)
def test_a_name_that_cannot_be_one_is_one_line(
    run: Run, folder: Path, name: str, message: str
) -> None:
    code, _, err = run("env", "new", name)
    assert code == 1
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(folder.iterdir())


def test_the_guide_shows_it_whole(run: Run, folder: Path) -> None:
    run("env", "new", "support")
    guide = (ROOT / "docs/guides/custom-environment.md").read_text("utf-8")
    assert f"```python\n{(folder / 'support.py').read_text()}```\n" in guide


def test_a_text_environment_becomes_rows(run: Run, folder: Path) -> None:
    run("env", "new", "number_game", "--text")
    given = ["--env", "./number_game.py:NumberGame", "--oracle", "--out", "data"]
    code, out, err = run("collect", *given, "--num-tasks", 6, "--json")
    assert code == 0, err
    assert json.loads(out)["kept"] == 6


def settler(messages: Messages) -> dict[str, Any]:
    """Look the order up, settle it by the rules, and say so; for one order wrongly."""
    order = int(messages[1]["content"].split()[-1].rstrip("."))
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if not results:
        call = {"name": "find_order", "arguments": json.dumps({"order": order})}
    elif len(results) == 1:
        price, days = (int(text) for text in re.findall(r"(\d+) (?:EUR|days)", results[0]))
        refund = price if days <= 30 or order == 1003 else 0
        call = {"name": "settle", "arguments": {"order": order, "refund": refund}}
    else:
        return {"content": "Done."}
    return {"content": None, "tool_calls": [{"type": "function", "function": call}]}


def test_a_model_behind_an_endpoint_plays_it(run: Run, folder: Path) -> None:
    pytest.importorskip("openai")
    run("env", "new", "support")
    (folder / "tasks.txt").write_text("".join(f"support-train-order-{n}\n" for n in range(2, 6)))
    with serving(Endpoint(settler)) as server:
        code, out, err = run(
            *("collect", "--env", "./support.py:Support", "--out", "data", "--tasks", "tasks.txt"),
            *("--model", "m", "--base-url", server.url, "--max-concurrency", 2, "--json"),
        )
        sent = server.requests[0]
    assert code == 0, err
    report = json.loads(out)
    assert (report["done"], report["kept"]) == (4, 3)
    assert report["dropped"] == {"reward_below_threshold": 1}
    assert report["tool_calls"] == {"calls": 8}
    assert [each["function"]["name"] for each in sent["tools"]] == ["find_order", "settle"]
    lines = (folder / "data/messages/support.jsonl").read_text().splitlines()
    rows = list(map(json.loads, lines))
    assert [len(row["messages"]) for row in rows] == [7, 7, 7]
    assert all(json.loads(row["tools"]) == sent["tools"] for row in rows)
