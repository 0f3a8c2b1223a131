"""`refusals` as a source: mixed by its weight, planned by a check, written by a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun
from agenttuning_plugin.cli.main import app
from agenttuning_plugin.training_data.made_sources import context_of, plan_sources
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from tests.support.source_files import write_sides


def test_a_run_mixes_refusals_by_weight(
    tmp_path: Path, tiny_model_dir: Path, small_tokenizer: Any
) -> None:
    sides = write_sides(tmp_path, agent=8, general=40)
    section = AgentTuningConfig(
        eta=0.5,
        agent=sides["agent"],
        general=[
            {"path": sides["general"], "weight": 1},
            {"refusals": {"setting": "chat"}, "weight": 1},
        ],
    )
    encoding, prepared = Encoding(max_length=256), tmp_path / "prepared"
    settings = RunSettings(encoding, Batch(4), 50, 0, prepared, base_model=str(tiny_model_dir))
    read, (planned,) = plan_sources(section, context_of(settings, small_tokenizer))
    assert (planned.kind, planned.made, planned.plan.requests) == ("refusals", False, 0)
    assert planned.plan.detail == "own: 48 conversations"
    assert len(load_source(resolve_source(read.general[1])).conversations) == 48
    run = TrainingRun(section, small_tokenizer, settings)
    first, second = run.manifest.content["general"]["sources"]
    assert "made" not in first
    assert second["made"]["kind"] == "refusals"
    assert second["made"]["setting"] == "chat"


def test_the_command_writes_a_readable_file(tmp_path: Path) -> None:
    out = tmp_path / "refusals.jsonl"
    command = ["refusals", "--out", str(out), "--actions", "tools", "--setting", "agent", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"refusals": 16, "answers": 0, "out": str(out)}
    read = load_source(resolve_source(str(out))).conversations
    assert len(read) == 16
    assert all(talk.tools and talk.messages[-1].tool_calls for talk in read)
    again = CliRunner().invoke(app, command)
    assert "exists already" in str(again.exception)
