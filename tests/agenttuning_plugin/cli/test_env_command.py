"""`agenttuning env` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from dataset_builders.environments import HELD_IN
from dataset_builders.environments.base import Oracle, OracleStep, StepResult, TextEnvironment
from dataset_builders.environments.data import find_data
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.environment import DatabaseEnvironment
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.storage import DATA_VARIABLE

Run = Callable[..., tuple[int, str, str]]


class Unsolved(DatabaseEnvironment):
    """Its oracle gives a wrong answer to every second task, and there is only a test split."""

    def task_ids(self, split: str) -> tuple[str, ...]:
        if split != "test":
            raise SourceNotFoundError(f"unsolved: no {split}.json")
        return super().task_ids(split)[:4]

    def oracle(self) -> Oracle:
        moves = list(super().oracle())
        yield moves[0]
        wrong = int(self._task_id[-1]) % 2
        yield OracleStep("So.", 'Answer\n["no such answer"]') if wrong else moves[1]

    def _act(self, action: str) -> StepResult:
        outcome = super()._act(action)
        wrong = "no such answer" in action
        return StepResult(exit_reason="answered", score=0.0) if wrong else outcome


class UnsolvedDialogue(DatabaseDialogue):
    world: ClassVar[type[TextEnvironment]] = Unsolved

    @classmethod
    def own_prompt(cls):  # type: ignore[no-untyped-def]
        return DatabaseDialogue.own_prompt()


class Folders(DatabaseEnvironment):
    """Wants a folder of data."""

    name: ClassVar[str] = "folders"
    data_names: ClassVar[tuple[str, ...]] = ("kept_in_folders",)

    def task_ids(self, split: str) -> tuple[str, ...]:
        find_data(self.name, self.data, self.data_names, ["tasks.json"], "the tasks")
        return DatabaseEnvironment().task_ids(split)

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        try:
            find_data(cls.name, data, cls.data_names, ["tasks.json"], "the tasks")
        except SourceNotFoundError as error:
            return str(error)
        return ""


class FoldersDialogue(UnsolvedDialogue):
    world: ClassVar[type[TextEnvironment]] = Folders


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    for name in set(HELD_IN) - {"database"}:
        monkeypatch.delitem(HELD_IN, name)
    monkeypatch.setitem(HELD_IN, "folders", f"{__name__}:FoldersDialogue")


@pytest.fixture
def unsolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HELD_IN, "unsolved", f"{__name__}:UnsolvedDialogue")


def one_line(err: str) -> str:
    (line,) = err.strip().splitlines()
    return line


def test_list_counts_tasks_or_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("env", "list")
    assert code == 0
    database, folders = out.splitlines()[:2]
    assert database.split() == ["database", "ready", "train", "2000,", "dev", "100,", "test", "200"]
    assert "missing" in folders
    assert "put the tasks there" in folders
    (tmp_path / "kept_in_folders").mkdir()
    (tmp_path / "kept_in_folders" / "tasks.json").write_text("[]")
    _, out, _ = run("env", "list", "--data", tmp_path, "--json")
    assert json.loads(out)["folders"] == {
        "ready": True,
        "missing": "",
        "tasks": {"train": 2000, "dev": 100, "test": 200},
    }


@pytest.mark.usefixtures("unsolved")
def test_list_shows_the_splits_that_are_there(run: Run) -> None:
    _, out, _ = run("env", "list", "--json")
    assert json.loads(out)["unsolved"]["tasks"] == {"test": 4}


def test_validate_says_ok(run: Run) -> None:
    code, out, err = run("env", "validate", "database", "--num-tasks", 7)
    assert code == 0, err
    assert "ok" in out
    assert "oracle 1, idle agent 0 on 7 tasks" in out
    code, out, _ = run("env", "validate", "database", "--split", "dev", "--num-tasks", 3, "--json")
    assert code == 0
    assert json.loads(out) == {
        "database": {
            "ok": True,
            "split": "dev",
            "oracle": 1.0,
            "idle": 0.0,
            "num_tasks": 3,
            "failures": {},
        }
    }


@pytest.mark.usefixtures("unsolved")
def test_validate_fails_where_the_oracle_does(run: Run) -> None:
    code, out, _ = run("env", "validate", "unsolved")
    assert code == 1
    lines = out.splitlines()
    assert "failed" in lines[0]
    assert "test: oracle 0.5, idle agent 0 on 4 tasks" in lines[0]
    assert [line.split(":")[0].strip()[-4:] for line in lines[1:]] == ["0001", "0003"]


@pytest.mark.usefixtures("unsolved")
def test_validate_all_goes_on_after_one_that_is_not_set_up(run: Run) -> None:
    code, out, err = run("env", "validate", "--num-tasks", 4, "--json")
    assert code == 1
    facts = json.loads(out)
    assert [facts[name]["ok"] for name in ("database", "folders", "unsolved")] == [1, 0, 0]
    assert "put the tasks there" in facts["folders"]["error"]
    assert "put the tasks there" in one_line(err)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("validate", "webarena"), "known: "),
        (("setup", "webarena"), "known: "),
        (("validate", "folders"), "put the tasks there"),
        (("validate", "database", "--split", "validation"), "'validation' is unknown"),
        (("validate", "database", "--option", "speed=3"), "option 'speed' is unknown; known: "),
        (("validate", "database", "--option", "speed={"), "the value is not YAML"),
        (("validate", "all", "--option", "speed=3"), "give its name instead of all"),
        (
            ("validate", "database", "--prompt", "published"),
            "name your AgentInstruct copy",
        ),
    ],
)
def test_errors_are_one_line(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    code, _, err = run("env", *arguments)
    assert code == 1
    assert one_line(err).startswith("error: ")
    assert expected in err


def test_setup_says_what_it_does(run: Run) -> None:
    code, out, _ = run("env", "setup", "database")
    assert code == 0
    assert out.startswith("database: ")


def test_published_words_are_played(run: Run, shared: Path) -> None:
    copy = shared / "data/agentinstruct"
    code, _, err = run(
        *("env", "validate", "database", "--num-tasks", 2),
        *("--prompt", "published", "--agentinstruct", copy),
    )
    assert code == 0, err
