"""`agenttuning pairs` with files and folders that it cannot use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from dataset_builders.errors import AgentTuningError
from tests.support.noisy_collection import collect_noisy

pytest.importorskip("openai")


def error_of(*arguments: object) -> str:
    """Return the line that the command ends with."""
    error = CliRunner().invoke(app, ["pairs", *map(str, arguments)]).exception
    assert isinstance(error, AgentTuningError), error
    return str(error)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "noisy"
    collect_noisy(out)
    return out


def test_an_existing_file_is_not_replaced(noisy: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    out.write_text("mine\n")
    assert "exists already" in error_of(noisy, "--out", out)
    assert out.read_text() == "mine\n"


def test_a_folder_that_cannot_be_made_is_named(noisy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = error_of(noisy, "--out", tmp_path / "file" / "pairs.jsonl")
    assert "pairs.jsonl: cannot be written" in error


def test_a_damaged_report_is_named(noisy: Path, tmp_path: Path) -> None:
    shutil.copytree(noisy, tmp_path / "copy")
    (tmp_path / "copy" / "collection" / "database.json").write_text("{}")
    error = error_of(tmp_path / "copy", "--out", tmp_path / "pairs.jsonl")
    assert "database.json: not the report of a collection" in error
