"""Task Derivation: sound tasks, constructed trajectories, real rewards, nothing uncounted."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.collector import run as collect
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.instructions.derive import KEPT
from dataset_builders.instructions.derive_run import TEMPLATE, DeriveSettings, derive
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.loading import SourceSpec, load_source
from tests.support.endpoint import Messages
from tests.support.served import Serve

pytest.importorskip("rapidfuzz", reason="pip install 'agenttuning-plugin[collect]'")

TABLE = {
    "name": "ships",
    "columns": ["ship", {"name": "crew", "type": "INTEGER"}, "port"],
    "rows": [["Aurora", 31, "Brest"], ["Bison", 40, "Cork"], ["Ceres", 27, "Brest"]],
}


def pair(question: str, sql: str, **further: Any) -> dict[str, Any]:
    return {"question": question, "sql": sql, "tables": [TABLE], **further}


SOUND = [
    pair("Which ship has the largest crew?", "SELECT ship FROM ships ORDER BY crew DESC LIMIT 1"),
    pair("How many sailors are in Brest?", "SELECT SUM(crew) FROM ships WHERE port = 'Brest'"),
    pair("Name port and crew of the Bison.", "SELECT port, crew FROM ships WHERE ship = 'Bison'"),
    pair("Move the Ceres to Cork.", "UPDATE ships SET port = 'Cork' WHERE ship = 'Ceres'"),
]
LONG = "SELECT a.ship, b.port, a.port, c.port, b.ship, c.ship, 'x' FROM ships a, ships b, ships c"
UNSOUND = [
    ("duplicate", pair("WHICH ship has the largest crew", "SELECT 1")),
    (
        "similar_to_evaluation",
        pair("Count all the ships in the harbour.", "SELECT COUNT(*) FROM ships"),
    ),
    ("solution_fails", pair("Who built it?", "SELECT builder FROM ships")),
    ("solution_fails", pair("Break it.", "SELEC")),
    ("idle_passes", pair("Which crew is above 90?", "SELECT ship FROM ships WHERE crew > 90")),
    ("idle_passes", pair("Change nothing.", "DELETE FROM ships WHERE crew > 90")),
    ("result_too_long", pair("List every combination.", LONG)),
    ("not_deterministic", pair("Draw a number.", "SELECT random()")),
]
GUARD = EvaluationGuard(["Count all ships in the harbour."])


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def run(settings: DeriveSettings) -> dict[str, Any]:
    return asyncio.run(derive(settings, GUARD))


def test_only_sound_records_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    records = [*SOUND, *(record for _, record in UNSOUND)]
    settings = DeriveSettings(write(tmp_path / "p.jsonl", records), tmp_path / "out")
    report = run(settings)
    expected = {KEPT: len(SOUND)}
    for reason, _ in UNSOUND:
        expected[reason] = expected.get(reason, 0) + 1
    assert report["records"] == expected
    assert report["guarded_by"] == 1
    assert json.loads((tmp_path / "out/report.json").read_text("utf-8")) == report
    # What is kept is a train split for a model to solve, and its oracle solves it.
    tasks = load_environment("database", data=str(tmp_path / "out/tasks"))
    played = play(tasks, tasks.task_ids("train"), OraclePolicy())
    assert [each.reward for each in played] == [1.0] * len(SOUND)
    assert not (tmp_path / "out/trajectories").exists()


def thoughts(messages: Messages) -> str:
    number = messages[-1]["content"].count("[AGENT]") - 1  # the acknowledgement
    return "\n".join(
        f"### Thought {n}\nStep {'one' if n == 1 else 'two'}." for n in range(1, number + 1)
    )


def test_constructed_trajectories_earn_their_reward(serve: Serve, tmp_path: Path) -> None:
    writer, endpoint = serve(thoughts)
    settings = DeriveSettings(write(tmp_path / "p.jsonl", SOUND), tmp_path / "out", writer=writer)
    report = run(settings)
    assert report["records"] == {KEPT: 4}
    assert report["spent"]["requests"] == len(endpoint.requests) == 4
    loaded = load_source(SourceSpec(str(tmp_path / "out/trajectories"), "agentinstruct"))
    kept = [conversation.messages for conversation in loaded.conversations]
    assert len(kept) == 4
    for messages, record in zip(kept, SOUND, strict=True):
        first, _, last = messages[-3:]
        assert first.content.startswith("Step one.\nAction: Operation")
        assert record["sql"] in first.content
        assert last.content.startswith("Step two.\nAction: Answer")
        assert [each.trained for each in messages[-4:]] == [False, True, False, True]
    assert kept[2][-2].content == "[('Cork', 40)]"
    assert kept[2][-1].content.endswith('Final Answer: ["Cork", "40"]')
    assert run(settings) == report
    assert len(endpoint.requests) == 4


def test_constructed_trajectories_may_call_tools(serve: Serve, tmp_path: Path) -> None:
    def reply(messages: Messages) -> str:
        assert "execute_sql({" in messages[-1]["content"]
        return "### Thought 1\nStep one.\n### Thought 2\nStep two."

    writer, _ = serve(reply)
    options = {"dialogue": "tools"}
    given = write(tmp_path / "p.jsonl", SOUND)
    out = tmp_path / "out"
    assert run(DeriveSettings(given, out, writer=writer, options=options))["records"] == {KEPT: 4}
    rows = load_source(SourceSpec(str(out / "trajectories"), "messages")).conversations
    for row, record in zip(rows, SOUND, strict=True):
        first, result, last = row.messages[-3:]
        assert (first.content, result.role, last.content) == ("Step one.", "tool", "Step two.")
        assert json.loads(first.tool_calls[0].arguments) == {"query": record["sql"]}
        assert last.tool_calls[0].name == "commit_final_answer"
        assert row.tools


@pytest.mark.parametrize("options", [{}, {"dialogue": "tools"}])
def test_the_same_records_are_sound(tmp_path: Path, options: dict[str, str]) -> None:
    records = [*SOUND, *(record for _, record in UNSOUND)]
    given = write(tmp_path / "p.jsonl", records)
    settings = DeriveSettings(given, tmp_path / "out", options=options)
    assert run(settings)["records"][KEPT] == len(SOUND)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("### Thought 1\nI look.", "wrong_number"),
        ("### Thought 1\nIt must be the Bison.\n### Thought 2\nYes.", "foretells"),
        (
            "### Thought 1\nI look.\n### Thought 2\nAs the expected answer says.",
            "mentions_reference",
        ),
        ("### Thought 1\nI look.\nAction: Answer\n### Thought 2\nYes.", "action"),
        ("I cannot help with that.", "wrong_number"),
    ],
)
def test_thoughts_that_no_agent_could_have_are_refused(
    reply: str, reason: str, serve: Serve, tmp_path: Path
) -> None:
    writer, endpoint = serve(lambda messages: reply)
    settings = DeriveSettings(
        write(tmp_path / "p.jsonl", SOUND[:1]), tmp_path / "out", writer=writer
    )
    report = run(settings)
    assert report["records"] == {"no_usable_thoughts": 1}
    assert report["rejected"] == {reason: 3}
    assert len(endpoint.requests) == 3


def test_a_value_that_the_question_names_may_be_said(serve: Serve, tmp_path: Path) -> None:
    record = pair(
        "Is the Bison in Cork or in Brest?", "SELECT port FROM ships WHERE ship = 'Bison'"
    )
    reply = "### Thought 1\nI look up whether it is Cork.\n### Thought 2\nIt is Cork."
    writer, _ = serve(lambda messages: reply)
    path = write(tmp_path / "p.jsonl", [record])
    assert run(DeriveSettings(path, tmp_path / "out", writer=writer))["records"] == {KEPT: 1}


def test_templates_are_called_so(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", SOUND)
    report = run(DeriveSettings(path, tmp_path / "out", num_tasks=2, templates=True))
    assert report["records"] == {KEPT: 2, "not_reached": 2}
    assert report["stopped"] == "enough"
    card = json.loads((tmp_path / "out/trajectories/card/db.json").read_text("utf-8"))
    assert (card["model"], card["rows"]) == (TEMPLATE, 2)


def test_a_spent_budget_stops_and_a_larger_one_goes_on(serve: Serve, tmp_path: Path) -> None:
    writer, endpoint = serve(thoughts)
    path = write(tmp_path / "p.jsonl", SOUND)
    poor = DeriveSettings(
        path, tmp_path / "out", writer=replace(writer, max_tokens=1, concurrency=1)
    )
    report = run(poor)
    assert report["stopped"] == "token_limit"
    assert report["records"] == {KEPT: 1, "not_reached": 3}
    assert run(replace(poor, writer=writer))["records"] == {KEPT: 4}
    assert len(endpoint.requests) == 4


def test_a_model_that_solves_is_held_against_the_reference(serve: Serve, tmp_path: Path) -> None:
    run(DeriveSettings(write(tmp_path / "p.jsonl", SOUND[:2]), tmp_path / "out"))

    def solve(messages: Messages) -> str:
        # Right for the first question, in another way than the reference; wrong for the second.
        said = sum(each["role"] == "assistant" for each in messages)
        if said == 1:
            sql = "SELECT ship FROM ships WHERE crew = (SELECT MAX(crew) FROM ships)"
            return f"I look.\nAction: Operation\n```sql\n{sql}\n```"
        return 'I see.\nAction: Answer\nFinal Answer: ["Bison"]'

    writer, _ = serve(solve)
    tasks = load_environment("database", data=str(tmp_path / "out/tasks"))
    report = collect(
        CollectConfig(play=RolloutConfig(tasks, writer.endpoint), out=tmp_path / "collected")
    )
    assert (report["kept"], report["dropped"]) == (1, {"reward_below_threshold": 1})


def test_databases_are_found_from_the_new_file(tmp_path: Path) -> None:
    folder = tmp_path / "bird/databases/fleet"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "fleet.sqlite")) as database, database:
        database.execute("CREATE TABLE ships (ship TEXT, crew INTEGER)")
        database.executemany("INSERT INTO ships VALUES (?, ?)", [("Aurora", 31), ("Bison", 40)])
    record = {"question": "Largest crew?", "SQL": "SELECT MAX(crew) FROM ships", "db_id": "fleet"}
    path = write(tmp_path / "bird/p.jsonl", [record])
    assert run(DeriveSettings(path, tmp_path / "out"))["records"] == {KEPT: 1}
    tasks = load_environment("database", data=str(tmp_path / "out/tasks"))
    assert play(tasks, tasks.task_ids("train"), OraclePolicy())[0].reward == 1.0


def test_bad_files_are_told_in_one_line(tmp_path: Path, serve: Serve) -> None:
    out = tmp_path / "out"
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        run(DeriveSettings(str(tmp_path / "nowhere.jsonl"), out))
    for line, complaint in [("{", "p.jsonl:1"), ("[]", "expected an object"), ("{}", "question")]:
        (tmp_path / "p.jsonl").write_text(line, "utf-8")
        with pytest.raises(DataError, match=complaint):
            run(DeriveSettings(str(tmp_path / "p.jsonl"), out))
    writer, _ = serve(thoughts)
    path = write(tmp_path / "p.jsonl", SOUND[:1])
    run(DeriveSettings(path, out, writer=writer))
    other = replace(writer, endpoint=replace(writer.endpoint, model="another"))
    with pytest.raises(ConfigError, match="model"):
        run(DeriveSettings(path, out, writer=other))
    with pytest.raises(ConfigError, match="max_cost"):
        replace(writer, max_cost=1.0)
