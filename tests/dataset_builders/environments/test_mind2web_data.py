"""Mind2Web's files: layouts, ranks and the index made of them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from dataset_builders.environments.mind2web import made_up
from dataset_builders.environments.mind2web.environment import Mind2WebEnvironment
from dataset_builders.environments.mind2web.steps import split_files
from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.storage import DATA_VARIABLE


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(DATA_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made_up.write(tmp_path / "mind2web")
    return tmp_path / "mind2web"


def test_splits_are_told_by_names(tmp_path: Path) -> None:
    names = {
        "data/train/train_0.json": "train",
        "data/train/train_10.json": "train",
        "data/test_task/test_task_2.json": "test_task",
        "data/test_website/test_website_0.json": "test_website",
        "data/test_domain/test_domain_0.json.gz": "test",
        "data_std/part.json": "test",
        "data_dev/part.json": "dev",
        "train.jsonl": "train",
        "ranks.json": "",
        "trainer_state.json": "",
        ".train_1.json": "",
    }
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    found = {
        path.relative_to(tmp_path).as_posix(): split
        for split, paths in split_files(tmp_path).items()
        for path in paths
    }
    assert found == {name: split for name, split in names.items() if split}


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_of_ranks_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    (folder / "ranks.json").unlink()
    (folder / "scores_all_data.pkl").write_bytes(pickle.dumps(_Payload(tmp_path / "ran")))
    with pytest.raises(SourceNotFoundError, match=r"is a pickle, .* convert it|ranks\.json") as e:
        Mind2WebEnvironment(folder).task_ids("train")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "ran").exists()


def test_the_converter_in_the_docs_works(folder: Path, tmp_path: Path) -> None:
    """Its lines are run on a pickle of the published form."""
    ranks = json.loads((folder / "ranks.json").read_text())
    (folder / "ranks.json").unlink()
    placed = {s: {c: place for place, c in enumerate(order)} for s, order in ranks.items()}
    pickled = {"scores": {}, "ranks": placed}
    (folder / "scores_all_data.pkl").write_bytes(pickle.dumps(pickled))
    docs = Path(__file__).resolve().parents[3] / "docs/tasks/held-in/mind2web.md"
    code = docs.read_text("utf-8").partition("```python\n")[2].partition("```")[0]
    here = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(code, str(docs), "exec"), {})
    finally:
        os.chdir(here)
    assert json.loads((folder / "ranks.json").read_text()) == {
        step: order[:50] for step, order in ranks.items()
    }
    assert len(Mind2WebEnvironment(folder).task_ids("train")) == 36


def test_ranks_as_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    before = Mind2WebEnvironment(folder).reset(options={"split": "test", "index": 0})[0]
    ranks = json.loads((folder / "ranks.json").read_text())
    (folder / "ranks.json").unlink()
    table = pa.table({"step": list(ranks), "candidates": list(ranks.values())})
    pq.write_table(table, folder / "ranks.parquet")
    after = Mind2WebEnvironment(folder).reset(options={"split": "test", "index": 0})[0]
    assert after == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "found list, expected an object"),
        ("{", "not readable"),
        ('{"s": [1]}', "s: expected a list of backend_node_id"),
        ("{}", "found no ranks for it"),
    ],
)
def test_bad_ranks_are_one_line(folder: Path, content: str, expected: str) -> None:
    (folder / "ranks.json").write_text(content)
    with pytest.raises(DataError, match=expected):
        Mind2WebEnvironment(folder).task_ids("train")


def test_a_step_that_is_there_twice_is_one_line(folder: Path) -> None:
    path = next(folder.rglob("train_0.json"))
    (path.parent / "train_1.json").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"train_1\.json: .* found twice in split train"):
        Mind2WebEnvironment(folder).task_ids("train")


def test_files_are_read_again_only_when_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    Mind2WebEnvironment.setup(str(folder), said.append)
    assert "mind2web: train: 36 steps, 36 of them" in said[1]
    said.clear()
    Mind2WebEnvironment.setup(str(folder), said.append)
    assert said == []
    path = next(folder.rglob("train_0.json"))
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    assert len(Mind2WebEnvironment(folder).task_ids("train")) == 6
