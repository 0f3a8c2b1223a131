"""`recover` and `vary` of an agent source, through a run, a check and `build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("openai")

from typer.testing import CliRunner

from agenttuning_plugin import AgentTuningConfig, TrainingRun
from agenttuning_plugin.cli.main import app
from agenttuning_plugin.preflight.made import check_made
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.training_data.made_sources import FOLDER, context_of, folder_of
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.made import PROVENANCE
from dataset_builders.sources.spec import SourceSpec
from tests.support.failed_episodes import noisy_database
from tests.support.source_files import write_sides


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("collected")
    noisy_database(folder, 4)
    return str(folder)


@pytest.fixture
def general(tmp_path: Path) -> str:
    return write_sides(tmp_path, agent=1, general=12)["general"]


def test_failed_episodes_are_recovered_before_training(
    collected: str, general: str, tmp_path: Path, small_tokenizer: Any
) -> None:
    agent = [{"path": collected}, {"path": collected, "recover": {"at": "last_recoverable"}}]
    section = AgentTuningConfig(agent=agent, general=general, eta=0.5, holdout=2)
    settings = RunSettings(
        Encoding(max_length=2048, holdout=2), Batch(2), 4, 0, tmp_path / "prepared"
    )
    report = Report("recipe.yaml")
    read = check_made(section, small_tokenizer, settings, report)
    assert not (tmp_path / "prepared" / FOLDER).exists()
    assert report.facts["made"][0]["requests"] == 0
    assert "3 failed episodes, at most 24 replays" in report.findings[0].detail
    assert read.agent[1].path == f"{collected}/messages"

    run = TrainingRun(section, small_tokenizer, settings)
    (place,) = (tmp_path / "prepared" / FOLDER).glob(f"*/recover/{PROVENANCE}")
    made = json.loads(place.read_text("utf-8"))
    assert made["environments"]["database"]["made"] == 2
    assert collected not in place.read_text("utf-8")
    sources = run.manifest.content["agent"]["sources"]
    assert sources[1]["made"] == made
    assert sources[1]["records_kept"] == 2
    first = place.stat().st_mtime_ns
    again = TrainingRun(section, small_tokenizer, settings)
    assert again.manifest.sha256 == run.manifest.sha256
    assert place.stat().st_mtime_ns == first
    context = context_of(settings, small_tokenizer)
    other = SourceSpec(**{"path": collected, "recover": {"at": "random"}})
    assert folder_of(other, context) != folder_of(section.agent[1], context)


def test_settings_of_a_section(collected: str, general: str) -> None:
    vary = {"tools": True, "no_tool_share": 0.1}
    section = AgentTuningConfig(agent={"path": collected, "vary": vary}, general=general)
    assert section.agent[0].vary is not None
    assert section.agent[0].vary.no_tool_from == (general,)
    restored = AgentTuningConfig(**section.model_dump(mode="json"))
    assert restored.agent == section.agent
    recovered = AgentTuningConfig(agent={"path": collected, "recover": {}}, general=general)
    assert recovered.agent[0].recover is not None
    assert recovered.agent[0].recover.collection == collected
    assert AgentTuningConfig(**recovered.model_dump(mode="json")).agent == recovered.agent
    with pytest.raises(ConfigError, match=r"recover\.att: unknown key, did you mean at\?"):
        AgentTuningConfig(agent={"path": collected, "recover": {"att": 1}}, general=general)
    with pytest.raises(ConfigError, match=r"recover\.collection"):
        AgentTuningConfig(agent={"recover": {}}, general=general)


def test_build_varies_and_recovers(
    collected: str, general: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    out = tmp_path / "mix"
    ran = CliRunner().invoke(
        app,
        [
            *("build", "--out", str(out), "--num-examples", "8", "--eta", "1", "--json"),
            *("--agent", collected, "--recover", collected, "--general", general),
            *("--vary", "tools", "--vary", "wording", "--vary", "variants=2"),
        ],
    )
    assert ran.exit_code == 0, (ran.output, ran.exception)
    from datasets import load_from_disk

    rows = load_from_disk(str(out))
    # One solved and two recovered episodes, each with two variants: 8 of these 9.
    assert len(set(rows["id"])) == 8
    assert sum(each.endswith(("-v1", "-v2")) for each in rows["id"]) >= 5
    wrong = CliRunner().invoke(
        app, ["build", "--out", "x", "--num-examples", "8", "--agent", "a", "--vary", "tool"]
    )
    assert "option 'tool' is unknown" in str(wrong.exception)
