"""Sources that are made before training: made once, named by their inputs, in the manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun
from agenttuning_plugin.preflight.made import check_made
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.training_data.made_sources import FOLDER, context_of, folder_of
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.made import PROVENANCE
from tests.support.source_files import write_sides

NUM_PROMPTS = 12


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., AgentTuningConfig]:
    sides = write_sides(tmp_path, agent=8, general=NUM_PROMPTS)

    def make(**changes: Any) -> AgentTuningConfig:
        replay = {
            "prompts": sides["general"],
            "max_new_tokens": 6,
            "temperature": 1.0,  # The random model's greedy answers are all empty.
            "filters": ["empty"],
            "batch_size": 4,
            **changes,
        }
        return AgentTuningConfig(agent=sides["agent"], general={"self_replay": replay}, holdout=2)

    return make


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> RunSettings:
    encoding, prepared = Encoding(max_length=96, holdout=2), tmp_path / "prepared"
    return RunSettings(encoding, Batch(2), 4, 0, prepared, base_model=str(tiny_model_dir))


def made_in(settings: RunSettings) -> list[Path]:
    assert settings.cache is not None
    return sorted((settings.cache / FOLDER).glob(f"*/self_replay/{PROVENANCE}"))


def test_it_is_made_once_and_recorded(
    section: Callable[..., AgentTuningConfig], settings: RunSettings, small_tokenizer: Any
) -> None:
    run = TrainingRun(section(), small_tokenizer, settings)
    (place,) = made_in(settings)
    folder = place.parent.parent
    first = place.stat().st_mtime_ns
    (source,) = run.manifest.content["general"]["sources"]
    data = (folder / "data/train.jsonl").read_bytes()
    assert source["made"] == json.loads(place.read_text("utf-8"))
    assert source["made"]["data_sha256"] == hashlib.sha256(data).hexdigest()
    assert str(folder.parent.parent) not in json.dumps(source)
    assert run.where({})["general"] == [str(folder)]
    assert "Self-generated replay" in (folder / "README.md").read_text("utf-8")
    rows = [json.loads(line) for line in data.decode().splitlines()]
    assert 0 < len(rows) <= NUM_PROMPTS
    assert all(row["messages"][1]["train"] for row in rows)

    again = TrainingRun(section(), small_tokenizer, settings)
    assert again.manifest.sha256 == run.manifest.sha256
    assert made_in(settings) == [place]
    assert place.stat().st_mtime_ns == first


@pytest.mark.parametrize(
    "change", [{"filters": []}, {"max_new_tokens": 7}, {"limit": 8}, {"seed": 1}]
)
def test_other_inputs_make_another_source(
    section: Callable[..., AgentTuningConfig],
    settings: RunSettings,
    small_tokenizer: Any,
    change: dict[str, Any],
) -> None:
    context = context_of(settings, small_tokenizer)
    one, other = (folder_of(each.general[0], context) for each in (section(), section(**change)))
    assert one != other
    assert one == folder_of(section().general[0], context)


def test_an_edited_prompt_template_or_model_makes_another_source(
    section: Callable[..., AgentTuningConfig],
    settings: RunSettings,
    make_tokenizer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    (spec,) = section().general
    assert spec.self_replay is not None
    found = [folder_of(spec, context_of(settings, make_tokenizer()))]

    template = str(make_tokenizer().chat_template) + "{# another #}"
    found.append(folder_of(spec, context_of(settings, make_tokenizer(template))))

    model = tmp_path / "model"
    shutil.copytree(str(settings.base_model), model)
    context = context_of(replace(settings, base_model=str(model)), make_tokenizer())
    assert folder_of(spec, context) == found[0]
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    found.append(folder_of(spec, context))

    prompts = Path(spec.self_replay.prompts)
    prompts.write_text(prompts.read_text("utf-8").replace("what is", "what was", 1), "utf-8")
    found.append(folder_of(spec, context_of(settings, make_tokenizer())))
    assert len(set(found)) == 4


def test_a_check_counts_requests_and_makes_nothing(
    section: Callable[..., AgentTuningConfig], settings: RunSettings, small_tokenizer: Any
) -> None:
    report = Report("recipe.yaml")
    read = check_made(section(), small_tokenizer, settings, report)
    assert made_in(settings) == []
    assert report.facts["made"][0]["requests"] == NUM_PROMPTS
    assert not report.facts["made"][0]["made"]
    assert report.facts["made"][0]["seconds"] > 0
    assert f"{NUM_PROMPTS} requests" in report.findings[0].detail
    assert read.general[0].path == section().general[0].self_replay.prompts  # type: ignore[union-attr]

    TrainingRun(section(), small_tokenizer, settings)
    report = Report("recipe.yaml")
    read = check_made(section(), small_tokenizer, settings, report)
    assert report.facts["made"][0]["made"]
    assert read.general[0].path == str(made_in(settings)[0].parent.parent)


def test_what_cannot_be_made_is_one_error(
    section: Callable[..., AgentTuningConfig], settings: RunSettings, small_tokenizer: Any
) -> None:
    with pytest.raises(ConfigError, match=r"general\.0: found path and self_replay, expected one"):
        AgentTuningConfig(agent="a", general={"path": "b", "self_replay": {"prompts": "c"}})
    with pytest.raises(ConfigError, match="self_replay: model: found base, expected a folder"):
        TrainingRun(section(), small_tokenizer, replace(settings, base_model=None))
