"""Transcripts as a page: nothing lost, nothing run, and its filters work in a real browser."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenttuning_plugin.reports.transcripts.page import render
from agenttuning_plugin.reports.transcripts.read import read_episodes
from dataset_builders.errors import DataError, SourceNotFoundError
from evaluators.results.transcripts import Journal
from evaluators.tasks.turns import split_turn

EVIL = (
    "</script><script>document.title='caught'</script><img src=x onerror=document.title='caught'>"
)


def record(item: str, success: float, reply: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "look around"}, {"role": "assistant", "content": reply}]
    scores = {"success": success, "reward": success}
    return {"item": item, "scores": scores, "error": "", "messages": messages, **more}


def opened(row: dict[str, Any]) -> dict[str, Any]:
    """The record with an instruction and its acknowledgement before the task."""
    opening = [{"role": "user", "content": "rules"}, {"role": "assistant", "content": "OK."}]
    return {**row, "rounds": 1, "messages": [*opening, *row["messages"]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks alone, as `evaluate` writes them."""
    for name, records in {
        "alfworld": [
            opened(record("a-1", 1.0, "THOUGHT: a lamp\nACTION: go to desk 1", exit_reason="won")),
            record("a-2", 0.0, "hm", exit_reason="bad_format", failures=["invalid_action"]),
            {"item": "a-3", "scores": {}, "error": "game broke", "messages": []},
        ],
        "database": [record("d-1", 0.0, EVIL, failures=["short_term_repetition"])],
    }.items():
        journal = Journal(tmp_path / "transcripts" / f"{name}.jsonl", {"model": "m"})
        for row in records:
            journal.add(row)
        journal.close()
    return tmp_path


@pytest.mark.parametrize(
    ("turn", "thought", "action"),
    [
        ("Think: list it\n\nAct: bash\n```bash\nls\n```", "list it", "Act: bash\n```bash\nls\n```"),
        (
            "I look.\nAction: Operation\n```sql\nX\n```",
            "I look.",
            "Action: Operation\n```sql\nX\n```",
        ),
        ("THOUGHT: go\n ACTION: go to desk 1", "go", "ACTION: go to desk 1"),
        ("Thought:\nbuy\n\nAction:\nclick[Buy Now]", "buy", "Action:\nclick[Buy Now]"),
        ("Thought: a\nAction: get_relations(x)", "a", "Action: get_relations(x)"),
        ("Thought: done\nFinal Answer: #3", "done", "Final Answer: #3"),
        ("Thought:y\nAnswer: B.\nAction: CLICK", "y", "Answer: B.\nAction: CLICK"),
        ("Thought 2: s\nAction 2: search[x]", "s", "Action 2: search[x]"),
        ("just talk of an action: none", "just talk of an action: none", ""),
        ("", "", ""),
    ],
)
def test_turns_are_taken_apart(turn: str, thought: str, action: str) -> None:
    assert split_turn(turn) == (thought, action)


@given(st.text())
def test_no_word_of_a_turn_is_lost(turn: str) -> None:
    thought, action = split_turn(turn)
    kept = "".join((thought + action).split())
    assert "".join(turn.split()).endswith(kept)


def test_steps_and_repeated_items_are_read(tmp_path: Path) -> None:
    for step in (20, 3):
        path = tmp_path / "transcripts" / f"step-{step:06}" / "os.jsonl"
        journal = Journal(path, {})
        journal.add({"item": "x", "scores": {}, "error": "box broke"})
        journal.add(record("x", 1.0, "done"))
        journal.close()
    with path.open("a") as file:
        file.write('{"item": "y", "sco')  # killed as it wrote
    shown = read_episodes(tmp_path, 10)
    assert [(e["step"], e["item"], e["error"]) for e in shown.episodes] == [
        (3, "x", ""), (20, "x", ""),
    ]  # fmt: skip


def test_the_prompt_is_told_from_the_task(folder: Path) -> None:
    shown = {e["item"]: e["opening"] for e in read_episodes(folder, 9).episodes}
    assert shown == {"a-1": 2, "a-2": 0, "a-3": 0, "d-1": 0}


def test_what_is_over_the_limit_is_counted(folder: Path) -> None:
    shown = read_episodes(folder, 2)
    assert len(shown.episodes) == 3
    assert shown.left_out == {"transcripts/alfworld.jsonl": 1}


def test_a_folder_without_transcripts_and_a_damaged_line_are_told(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceNotFoundError, match="found no transcripts"):
        read_episodes(tmp_path / "nowhere", 5)
    path = folder / "transcripts" / "database.jsonl"
    path.write_text(path.read_text("utf-8").replace('{"item"', '"item"') + "{}\n", "utf-8")
    with pytest.raises(DataError, match=r"database\.jsonl:2: not a transcript"):
        read_episodes(folder, 5)


def test_surrogates_do_not_stop_the_page(folder: Path) -> None:
    journal = Journal(folder / "transcripts" / "gsm8k.jsonl", {})
    journal.add(record("\ud800", 0.0, "broken \udcff piece"))
    journal.close()
    page = render(read_episodes(folder, 9), "t")
    assert "broken \ufffd piece" in page
    page.encode("utf-8")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_that_json_lacks_do_not_stop_the_page(folder: Path, value: float) -> None:
    journal = Journal(folder / "transcripts" / "general.jsonl", {})
    row = {"item": "0", "scores": {"loss": value}, "error": "", "weight": value, "messages": []}
    journal.add(row)
    journal.close()
    page = render(read_episodes(folder, 9), "t")
    data = page.partition('type="application/json">')[2].partition("</script>")[0]

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    told = json.loads(data, parse_constant=refuse)["episodes"][-1]
    assert told["scores"] == {"loss": str(value)}


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    program, service = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not service:
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for option in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    started = webdriver.Chrome(options, webdriver.ChromeService(service))
    yield started
    started.quit()


def test_the_page_works_in_a_browser(folder: Path, tmp_path: Path, driver: Any) -> None:
    command = [sys.executable, "-m", "agenttuning_plugin", "view", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 episodes" in done.stdout
    driver.get((folder / "view.html").as_uri())

    def listed() -> list[str]:
        return [row.text.split("\n")[0] for row in driver.find_elements("css selector", "#list li")]

    def choose(name: str, value: str) -> None:
        driver.execute_script(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event(s.tagName === 'INPUT' ? 'input' : 'change'))",
            name,
            value,
        )

    assert listed() == ["a-1", "a-2", "a-3", "d-1"]
    shown = driver.find_element("id", "episode").text
    assert "a lamp" in shown
    assert "ACTION: go to desk 1" in shown
    assert "look around" in shown
    assert "reward 1" in shown
    assert "prompt: 2 turns before the task" in shown
    assert "OK." not in shown  # folded away
    choose("failure", "invalid_action")
    assert listed() == ["a-2"]
    choose("failure", "")
    choose("task", "database")
    assert listed() == ["d-1"]
    # A hostile transcript is shown as it is, and has run nothing.
    assert EVIL in driver.find_element("id", "episode").text
    assert driver.title == folder.name
    choose("task", "")
    choose("outcome", "not measured")
    assert "game broke" in driver.find_element("id", "episode").text
    choose("outcome", "")
    choose("text", "GO TO DESK")
    assert listed() == ["a-1"]
    assert driver.find_element("id", "count").text == "1 of 4 episodes"
    loaded = driver.execute_script("return performance.getEntriesByType('resource').length")
    assert loaded == 0
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    # What the page embeds is what was written.
    episodes = json.loads(driver.execute_script("return JSON.stringify(data.episodes)"))
    assert [episode["item"] for episode in episodes] == ["a-1", "a-2", "a-3", "d-1"]


def test_outcomes_of_tasks_that_score_otherwise(tmp_path: Path, driver: Any) -> None:
    journal = Journal(tmp_path / "transcripts" / "mixed.jsonl", {})
    for item, scores in {
        "passes": {"pass@1": 1.0},
        "fails": {"pass@1": 0.0},
        "half": {"reward": 0.5},
        "rated": {"score": 7.0},
        "diverged": {"loss": math.nan},
    }.items():
        journal.add({"item": item, "scores": scores, "error": "", "messages": []})
    journal.close()
    page = tmp_path / "view.html"
    page.write_text(render(read_episodes(tmp_path, 9), "t"), "utf-8")
    driver.get(page.as_uri())
    listed = driver.find_elements("css selector", "#list li")
    rows = [row.text.split(" \u00b7 ")[-1] for row in listed]
    assert rows == ["solved", "not solved", "partly solved", "measured", "measured"]
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    listed[-1].click()
    assert "loss nan" in driver.find_element("id", "episode").text


def test_items_without_a_transcript_are_left_out_and_said(folder: Path, run: Any) -> None:
    journal = Journal(folder / "transcripts" / "replay.jsonl", {"model": "m"})
    for number in range(3):
        journal.add({"item": f"r-{number}", "scores": {"nll": 1.0}, "error": "", "rounds": 2})
    journal.close()
    shown = read_episodes(folder, 500)
    assert {episode["task"] for episode in shown.episodes} == {"alfworld", "database"}
    assert shown.without == {"transcripts/replay.jsonl": 3}
    code, out, err = run("view", folder)
    assert code == 0
    assert "4 episodes" in out
    assert "transcripts/replay.jsonl: 3 items have no transcript" in err


def test_an_endpoints_episodes_are_shown_beside_the_runs(folder: Path) -> None:
    for step in (3, 12):
        journal = Journal(
            folder / f"endpoint/step-{step}/transcripts/database.jsonl", {"model": "m"}
        )
        journal.add(record("d-1", 1.0, "hm"))
        journal.close()
    shown = read_episodes(folder, 10)
    assert [(row["task"], row["step"]) for row in shown.episodes][-2:] == [
        ("endpoint_database", 3),
        ("endpoint_database", 12),
    ]
    assert len(shown.episodes) == 6


def test_a_collection_is_shown_with_what_was_dropped(tmp_path: Path, run: Any) -> None:
    code, _, err = run(
        *("collect", "--env", "database", "--oracle", "--num-tasks", 4, "--out", tmp_path),
        *("--filter", "max_rounds=1"),
    )
    assert code == 0, err
    shown = read_episodes(tmp_path, 10)
    assert [row["task"] for row in shown.episodes] == ["database"] * 4
    assert {row["facts"]["kept"] for row in shown.episodes} == {"too_many_rounds"}
    assert all(row["turns"] and row["scores"]["reward"] == 1 for row in shown.episodes)
    code, out, _ = run("errors", tmp_path, "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert (row["evaluator"], row["failures"]["invalid_action"]["n"]) == ("database", 4)
    code, out, _ = run("view", tmp_path)
    assert code == 0
    assert "4 episodes" in out
    (tmp_path / "collection/database.json").write_text("{}", "utf-8")
    code, _, err = run("view", tmp_path)
    assert code == 1
    assert err.startswith("error: ")
    assert "not a collection's report" in err
