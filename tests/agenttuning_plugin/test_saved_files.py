"""Files of an earlier version still load: cache entry, output folders, a collection.

tests/assets/saved/README.md says what they are and what wrote them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ASSETS = Path(__file__).resolve().parents[1] / "assets/saved"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as the current folder."""
    folder = tmp_path / "saved"
    shutil.copytree(ASSETS, folder)
    monkeypatch.chdir(folder)
    return folder


def made_with(name: str) -> bool:
    """Whether the installed version of a package is the one that wrote the files."""
    from importlib.metadata import version

    manifest = json.loads((ASSETS / "run-plain/manifest.json").read_text("utf-8"))
    return bool(version(name) == manifest["versions"][name])


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_a_run_takes_the_entry_from_the_cache_and_has_the_same_rows(name: str, saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from agenttuning_plugin.config.recipe import AgentTuningSection
    from agenttuning_plugin.training_data.run import TrainingRun
    from agenttuning_plugin.training_data.settings import RunSettings
    from dataset_builders.manifest.records import Batch
    from dataset_builders.mixing.preparation import Encoding

    if not made_with("tokenizers"):
        pytest.skip("the key of an entry depends on how `tokenizers` writes out a tokenizer")
    entries = sorted((saved / "prepared/agenttuning").iterdir())
    section = AgentTuningSection.model_validate(
        {"agent": "agent.jsonl", "general": "general.jsonl", "holdout": 3}
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved / "tokenizer")
    encoding = Encoding(max_length=256, holdout=3)
    cache = saved / "prepared"
    settings = {
        "plain": RunSettings(encoding, Batch(4), 5, 42, cache),
        "packed": RunSettings(encoding, Batch(2), 3, 42, cache, 256),
    }[name]
    mix = TrainingRun(section, tokenizer, settings)
    assert [path for path in sorted(entries[0].parent.iterdir()) if path.is_dir()] == entries
    rows = [list(row["input_ids"]) for row in mix.train_dataset]
    assert rows == json.loads((saved / f"rows-{name}.json").read_text("utf-8"))
    record = mix.manifest
    manifest = json.loads((saved / f"run-{name}/manifest.json").read_text("utf-8"))
    different = {key for key, value in record.content.items() if manifest[key] != plain(value)}
    assert different <= {"versions"}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_explain_shows_the_text_of_a_step(name: str, saved: Path, run: Run) -> None:
    pytest.importorskip("tokenizers")
    code, out, _ = run("explain", f"run-{name}", "--step", "1")
    assert code == 0
    assert "chat" in out


def test_an_evaluation_is_read_by_all_commands(saved: Path, run: Run) -> None:
    code, out, _ = run("compare", "evaluated", "evaluated", "--json")
    assert code == 0
    assert json.loads(out)
    code, out, _ = run("errors", "evaluated")
    assert code == 0
    code, out, _ = run("view", "evaluated", "--out", "page.html")
    assert code == 0
    assert "database" in (saved / "page.html").read_text("utf-8")


def test_a_finished_collection_is_continued_and_built_from(saved: Path, run: Run) -> None:
    written = (saved / "collected/jsonl/db.jsonl").read_bytes()
    arguments = ("--env", "database", "--oracle", "--num-tasks", "3", "--out", "collected")
    code, out, _ = run("collect", *arguments, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["done"], report["kept"]) == (3, 3)
    assert (saved / "collected/jsonl/db.jsonl").read_bytes() == written
    code, out, _ = run(
        "build", "--agent", "collected", "--general", "general.jsonl", "--num-examples", "20",
        "--out", "built",
    )  # fmt: skip
    assert code == 0
    assert json.loads((saved / "built/manifest.json").read_text("utf-8"))["agent"]["rows"] == 3
