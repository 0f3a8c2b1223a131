"""No sampler may move, drop or repeat rows of a mix; other people's recipes stay as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.training_data.row_order import check_row_order
from agenttuning_plugin.training_data.trainer_checks import check_trainer
from dataset_builders.errors import ConfigError


@pytest.fixture
def make_trainer(tiny_model_dir: Path, make_rows: Callable[..., Any], tmp_path: Path) -> Any:
    transformers = pytest.importorskip("transformers")

    def make(**settings: Any) -> Any:
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to="none", **settings
        )
        return transformers.Trainer(model, arguments, train_dataset=make_rows(24, seed=1))

    return make


def test_the_order_of_the_rows_is_the_sequential_samplers(make_trainer: Any) -> None:
    check_row_order(make_trainer(train_sampling_strategy="sequential"))


@pytest.mark.parametrize("strategy", [None, "random", "group_by_length", "batch_rebalance"])
def test_another_sampler_is_refused(make_trainer: Any, strategy: str | None) -> None:
    # None is what a user gets who says nothing; a release without a strategy shuffles.
    trainer = make_trainer(**({"train_sampling_strategy": strategy} if strategy else {}))
    with pytest.raises(ConfigError, match=r"trainer: found \w+Sampler as the sampler"):
        check_row_order(trainer)
    with pytest.raises(ConfigError, match="expected SequentialSampler"):
        check_trainer(trainer, None, 1)  # type: ignore[arg-type]  # not looked at


def test_a_batch_that_is_split_among_processes_is_refused(make_trainer: Any) -> None:
    trainer = make_trainer(
        train_sampling_strategy="sequential", accelerator_config={"split_batches": True}
    )
    with pytest.raises(ConfigError, match="split_batches"):
        check_row_order(trainer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("balance_labels", True),
        ("label_balance_window_optim_steps", 4),
        ("group_by_length", True),
        ("curriculum_sampling", False),
        ("accelerator_config", {"split_batches": True}),
    ],
)
def test_a_recipe_names_the_key(key: str, value: Any, tmp_path: Path) -> None:
    section = {"agent": "a.jsonl", "general": "b.jsonl"}
    with pytest.raises(ConfigError, match=rf"^{key}[.\w]*: found"):
        check_recipe({"agenttuning": section, "max_steps": 2, key: value})


def test_the_plugin_looks_at_the_trainer_that_was_made(
    make_trainer: Any, axolotl_process: None
) -> None:
    from axolotl.utils.dict import DictDefault

    from agenttuning_plugin.trainers.axolotl import AgentTuningPlugin
    from agenttuning_plugin.training_data.loss_normalization import LossNormalization
    from agenttuning_plugin.training_data.model_record import ModelRecord

    cfg = DictDefault({"agenttuning": {"agent": ["a.jsonl"], "general": ["b.jsonl"]}})
    with pytest.raises(ConfigError, match="RandomSampler"):
        AgentTuningPlugin().add_callbacks_post_trainer(cfg, make_trainer())
    ours = make_trainer(train_sampling_strategy="sequential")
    callbacks = AgentTuningPlugin().add_callbacks_post_trainer(cfg, ours)
    assert {type(callback) for callback in callbacks} == {LossNormalization, ModelRecord}


@pytest.fixture
def other_recipe(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A recipe of somebody who does not use the plugin."""
    recipe = {
        "base_model": str(tiny_model_dir),
        "datasets": [{"path": str(tmp_path / "chat.jsonl"), "type": "chat_template"}],
        "output_dir": str(tmp_path / "out"),
        "sample_packing": True,
        "sequence_len": 256,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "max_steps": 2,
        "bf16": False,
        "attn_implementation": "sdpa",
    }
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_the_plugin_does_nothing_in_another_recipe(
    other_recipe: Path, axolotl_process: None
) -> None:
    from axolotl.utils.dict import DictDefault

    from agenttuning_plugin.trainers.axolotl import AgentTuningPlugin

    cfg = DictDefault(yaml.safe_load(other_recipe.read_text()))
    plugin, hook = AgentTuningPlugin(), sys.excepthook
    plugin.register(cfg)
    assert cfg.to_dict() == yaml.safe_load(other_recipe.read_text())
    assert sys.excepthook is hook
    assert plugin.load_datasets(cfg) is None
    assert plugin.get_collator_cls_and_kwargs(cfg) is None
    assert not plugin.get_training_args(cfg)
    assert plugin.add_callbacks_post_trainer(cfg, None) == []
    import torch

    state = torch.get_rng_state()
    plugin.pre_model_load(cfg)
    assert torch.equal(state, torch.get_rng_state())


@pytest.fixture
def entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin, declared as an installed distribution would."""
    base = pytest.importorskip("axolotl.integrations.base")
    if not hasattr(base, "PLUGIN_ENTRY_POINT_GROUP"):
        pytest.skip("this Axolotl has no entry points for plugins")
    place = tmp_path / "site/declares_it-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: declares-it\nVersion: 1.0\n")
    target = "agenttuning_plugin.trainers.axolotl:AgentTuningPlugin"
    (place / "entry_points.txt").write_text(f"[{base.PLUGIN_ENTRY_POINT_GROUP}]\nat = {target}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    base.reset_plugin_entry_points_cache()
    yield
    base.reset_plugin_entry_points_cache()


def test_an_entry_point_leaves_other_recipes_alone(
    other_recipe: Path, entry_point: None, axolotl_process: None
) -> None:
    from axolotl.cli.config import load_cfg
    from axolotl.integrations.base import PluginManager

    cfg = load_cfg(str(other_recipe))
    assert any("AgentTuningPlugin" in name for name in PluginManager.get_instance().plugins)
    assert cfg.datasets[0].path.endswith("chat.jsonl")
    assert not cfg.curriculum_sampling
    assert PluginManager.get_instance().load_datasets(cfg, preprocess=False) is None
