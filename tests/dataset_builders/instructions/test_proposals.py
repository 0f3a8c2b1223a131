"""From what a model writes to a task and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.instructions.database import DatabaseTasks
from dataset_builders.instructions.operating_system import OperatingSystemTasks
from dataset_builders.instructions.proposals import sections, split_proposals
from dataset_builders.instructions.task_kinds import load_seeds, shipped_seeds

KINDS = [DatabaseTasks(), OperatingSystemTasks()]


def test_headings_within_code_are_code() -> None:
    code = "```bash\n### Task\n# Check\nls\n```"
    reply = f"Sure!\n### Task\nDo it.\n### Solution\n{code}\n### Check: size"
    (proposal,) = split_proposals(reply)
    assert [section.title for section in proposal] == ["task", "solution", "check"]
    assert proposal[1].code == "### Task\n# Check\nls"
    assert proposal[2].argument == "size"


def test_talk_is_no_proposal() -> None:
    assert split_proposals("I cannot do that.\n### Solution\n1") == []
    assert sections("") == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_shown_task_is_read_as_itself(kind: Any) -> None:
    seeds = shipped_seeds(kind)
    assert {kind.changes(seed) for seed in seeds} == {True, False}
    text = "\n\n".join(kind.show(seed) for seed in seeds)
    assert [kind.read(proposal) for proposal in split_proposals(text)] == seeds


def test_generated_training_tasks_are_shown_and_read_alike() -> None:
    kind = DatabaseTasks()
    for record in kind.train_split(None)[:50]:
        (proposal,) = split_proposals(kind.show(record) or "")
        read = kind.read(proposal)
        assert kind.refuse(read) == ""
        assert (read["question"], read["sql"]) == (record["question"], record["sql"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_task_cut_off_anywhere_is_refused_or_whole(kind: Any) -> None:
    whole = shipped_seeds(kind)[-1]
    lines = (kind.show(whole) or "").splitlines()
    for end in range(1, len(lines)):
        (cut,) = split_proposals("\n".join(lines[:end]))
        with pytest.raises(DataError):
            kind.read(cut)


TABLE = "### Table t\n```csv\na,b\n1,x\n```"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"### Task\n{TABLE}\n### Solution\n```sql\nSELECT 1\n```", "task: missing"),
        ("### Task\nQ\n### Solution\n```sql\nSELECT 1\n```\n### Answer\n[1]", "table"),
        (f"### Task\nQ\n{TABLE}\n### Solution\nSELECT 1\n### Answer\n[1]", "solution"),
        (f"### Task\nQ\n{TABLE}\n### Solution\n```sql\nDROP TABLE t\n```", "solution"),
        (f"### Task\nQ\n{TABLE}\n### Solution\n```sql\nSELECT 1\n```\n### Answer\n7", "answer"),
        (f"### Task\nQ\n{TABLE}\n### Solution\n```sql\nDELETE FROM t\n```", "check"),
        (f"### Task\nQ\n{TABLE.replace('1,x', '1')}\n### Solution\n```sql\nSELECT 1\n```", "table"),
        (
            f"### Task\nQ\n{TABLE.replace('a,b', 'a,A')}\n### Solution\n```sql\nSELECT 1\n```",
            "table",
        ),
    ],
)
def test_what_is_wrong_with_a_database_task_is_said(text: str, complaint: str) -> None:
    (proposal,) = split_proposals(text)
    with pytest.raises(DataError, match=complaint):
        DatabaseTasks().read(proposal)


def test_cells_keep_how_they_are_written() -> None:
    text = (
        "### Task\nQ\n### Table t\n```csv\nzip,n,x,empty\n007,12,1.5,\n1e5,-3,2,\n```\n"
        "### Solution\n```sql\nSELECT 1\n```\n### Answer\n[1]"
    )
    (table,) = DatabaseTasks().read(split_proposals(text)[0])["tables"]
    assert [column["type"] for column in table["columns"]] == ["TEXT", "INTEGER", "REAL", "INTEGER"]
    assert table["rows"] == [["007", 12, 1.5, None], ["1e5", -3, 2.0, None]]


def test_seeds_of_the_user(tmp_path: Path) -> None:
    kind = DatabaseTasks()
    seeds = shipped_seeds(kind)
    own = tmp_path / "mine.md"
    own.write_text("\n\n".join(kind.show(seed) or "" for seed in seeds[:2]), "utf-8")
    assert load_seeds(kind, str(own), None) == seeds[:2]
    kind.write(tmp_path, seeds[2:])
    assert load_seeds(kind, str(tmp_path), None) == seeds[2:]
    own.write_text(f"{kind.show(seeds[0])}\n\n### Task\nhalf", "utf-8")
    with pytest.raises(DataError, match=r"mine\.md: task 2: solution"):
        load_seeds(kind, str(own), None)
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        load_seeds(kind, str(tmp_path / "nowhere.md"), None)


def test_every_real_training_task_can_be_shown(shared: Path) -> None:
    kind = OperatingSystemTasks()
    records = kind.train_split(str(shared / "data/os_interaction"))
    assert len(records) == 1000
    for record in records:
        (proposal,) = split_proposals(kind.show(record) or "")
        read = kind.read(proposal)
        assert read["evaluation"]["check"] == record["evaluation"]["check"]
