"""Run length as passes over the general data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.training_data.run import TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from tests.support.source_files import write_sides


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    return write_sides(tmp_path, agent=7, general=100)


def mixed(sources: dict[str, str], tokenizer: Any, folder: Path, packed: bool, **keys: Any) -> Any:
    section = AgentTuningSection.model_validate({**sources, "holdout": 0, **keys})
    encoding, batch = Encoding(max_length=256, holdout=0), Batch(4 if packed else 8)
    length = 256 if packed else None
    settings = RunSettings(encoding, batch, None, 1, folder, length, 50)
    return TrainingRun(section, tokenizer, settings)


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"eta": 0.0, "general_passes": 1}, 13),  # 100 rows in batches of 8
        ({"eta": 0.5, "general_passes": 1}, 25),
        ({"eta": 0.5, "general_passes": 2.5}, 63),
        ({"eta": 0.2, "general_passes": 1}, 16),
        ({"eta": 0.5, "general_passes": 1, "eta_stages": [{"from_step": 10, "eta": 0.0}]}, 18),
        ({"eta": 0.0, "general_passes": 1, "eta_stages": [{"from_step": 99, "eta": 0.5}]}, 13),
    ],
)
def test_the_run_is_as_long_as_its_passes(
    keys: dict[str, Any], steps: int, sources: dict[str, str], small_tokenizer: Any, tmp_path: Path
) -> None:
    mix = mixed(sources, small_tokenizer, tmp_path, packed=False, **keys)
    assert mix.steps == steps
    passes = mix.report["mix"]["general_passes"]
    assert keys["general_passes"] <= passes < keys["general_passes"] + 8 / 100


def test_packed_rows_pass_as_often(
    sources: dict[str, str], small_tokenizer: Any, tmp_path: Path
) -> None:
    mix = mixed(sources, small_tokenizer, tmp_path, packed=True, eta=0.2, general_passes=3)
    assert mix.report["mix"]["general_passes"] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"num_examples": 5}, "general_passes: found with num_examples"),
        ({"eta_unit": "token"}, "general_passes: found with eta_unit token"),
        ({"general_passes": 0}, "agenttuning.general_passes: found 0"),
    ],
)
def test_what_contradicts_the_passes_is_refused(
    keys: dict[str, Any], message: str, sources: dict[str, str]
) -> None:
    section = {**sources, "general_passes": 1, **keys}
    with pytest.raises(ConfigError, match=message):
        check_recipe({"agenttuning": section})


def test_one_length_is_said_once(sources: dict[str, str]) -> None:
    cfg = {"agenttuning": {**sources, "general_passes": 1}}
    assert check_recipe({**cfg, "sample_packing": True}).general_passes == 1
    with pytest.raises(ConfigError, match="general_passes: found with max_steps"):
        check_recipe({**cfg, "max_steps": 3})
    with pytest.raises(ConfigError, match="num_epochs: found 3, expected nothing"):
        check_recipe({**cfg, "num_epochs": 3})


def test_a_last_stage_without_general_data_never_ends(
    sources: dict[str, str], small_tokenizer: Any, tmp_path: Path
) -> None:
    stages = [{"from_step": 2, "eta": 1.0}]
    with pytest.raises(ConfigError, match="expected general data in the last stage"):
        mixed(sources, small_tokenizer, tmp_path, packed=False, general_passes=1, eta_stages=stages)
