"""`agenttuning recover` on a real collection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from dataset_builders.errors import AgentTuningError
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from tests.support.failed_episodes import noisy_database

pytest.importorskip("openai")


def test_recover_writes_a_file_that_is_read_as_agent_data(tmp_path: Path) -> None:
    noisy_database(tmp_path / "collected", 4)
    out = tmp_path / "recovered.jsonl"
    arguments = ["recover", str(tmp_path / "collected"), "--out", str(out)]
    ran = CliRunner().invoke(app, [*arguments, "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["splices"] == report["environments"]["database"]["made"] == 2
    assert report["refused"] == {}
    source = resolve_source(str(out))
    assert source.spec.format == "messages"
    rows = list(load_source(source).conversations)
    assert [row.num_trained for row in rows] == [2, 2]
    assert {(row.task, row.source, row.reward) for row in rows} == {("db", "recovered", 1.0)}
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, AgentTuningError)
    assert "exists already" in str(again.exception)
    shown = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "b.jsonl"), "--at", "random"])
    assert "database: episodes 4, solved 1" in shown.output
    wrong = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "c.jsonl"), "--at", "first"])
    assert "first_error" in str(wrong.exception)
