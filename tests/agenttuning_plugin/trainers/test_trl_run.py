"""`TrainingRun` with the real SFTTrainer: what it adds, and trainers that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults
from agenttuning_plugin.reports.model_record import read_model_record
from agenttuning_plugin.reports.runs.read import read_runs
from agenttuning_plugin.training_data.collator import PackedCollator
from dataset_builders.errors import ConfigError, SourceNotFoundError
from dataset_builders.manifest.records import Batch
from dataset_builders.manifest.store import read_manifest
from tests.support.source_files import write_sides
from tests.support.trainer_settings import checkpointing

LENGTH = 96

Make = Callable[..., tuple[TrainingRun, Any]]
"""Makes a run and an SFTTrainer for it; takes what differs from a trainer that is accepted."""


@pytest.fixture
def section(tmp_path: Path) -> dict[str, Any]:
    return {"holdout": 2, **write_sides(tmp_path, agent=12, general=40)}


@pytest.fixture
def make(tiny_model_dir: Path, section: dict[str, Any], tmp_path: Path, one_thread: None) -> Make:
    import trl
    from transformers import AutoTokenizer

    def make_run(
        packing: bool = False,
        keys: dict[str, Any] | None = None,
        change: Callable[[TrainingRun, dict[str, Any]], Any] | None = None,
        without: str = "",
        sft: dict[str, Any] | None = None,
    ) -> tuple[TrainingRun, Any]:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 3,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "seed": 5,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "logging_steps": 1,
            "save_strategy": "no",
            **checkpointing(trl.SFTConfig, False),
            **sft_defaults(packing=packing),
            **(sft or {}),
        }
        settings.pop(without, None)
        args = trl.SFTConfig(**settings)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        config = AgentTuningConfig(**section, **(keys or {}))
        cache = tmp_path / "prepared"
        run = TrainingRun(config, tokenizer, args, max_length=LENGTH, packing=packing, cache=cache)
        given = {"train_dataset": run.train_dataset, "data_collator": run.data_collator}
        if change:
            change(run, given)
        trainer = trl.SFTTrainer(str(tiny_model_dir), args, processing_class=tokenizer, **given)
        return run, trainer

    return make_run


def names(trainer: Any) -> list[str]:
    return [type(callback).__name__ for callback in trainer.callback_handler.callbacks]


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
def test_a_run_trains_measures_and_leaves_its_files(make: Make, packing: bool) -> None:
    evaluators = [{"type": "general_loss", "every": 3}]
    run, trainer = make(packing, {"evaluators": evaluators, "loss_normalization": "tokens"})
    assert trainer.train_dataset is run.train_dataset
    assert len(run.eval_dataset or ()) == 2
    run.attach(trainer)
    added = {"LossNormalization", "EvaluatorCallback"} | ({"PackingCheck"} if packing else set())
    assert added <= set(names(trainer))
    trainer.train()
    logged = [entry["step"] for entry in trainer.state.log_history if "eval_general_loss" in entry]
    assert sorted(logged) == [0, 3]
    folder = Path(trainer.args.output_dir)
    manifest = read_manifest(folder)
    assert manifest.batch == Batch(2, 2, 1)
    assert manifest.content["sha256"] == run.manifest.sha256
    assert manifest.content["loss"]["normalization"] == "tokens"
    report = json.loads((folder / "agenttuning_report.json").read_text("utf-8"))
    assert report["mix"] == run.report["mix"]
    assert len(run.train_dataset) == run.steps * 4
    training = read_model_record(folder)["training"]
    assert (training["steps"], training["first_step"]) == (3, 0)
    assert training["seconds"] > 0
    (found,) = read_runs([folder]).runs  # as `agenttuning table` reads it
    assert (found.seed, found.cost.steps, set(found.end)) == (5, 3, {"general"})
    assert found.settings["batch.micro"] == 2
    assert found.settings["agenttuning.holdout"] == 2
    assert found.settings["agenttuning.eta"] == 0.2  # a default, which the record leaves out
    assert found.cost.trained_tokens == run.report["mix"]["trained_tokens"]


def shuffled(run: TrainingRun, given: dict[str, Any]) -> None:
    given["train_dataset"] = run.train_dataset.shuffle(seed=1)


def own_collator(run: TrainingRun, given: dict[str, Any]) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    given["data_collator"] = DataCollatorForLanguageModeling(pad_token_id=0)


def sft(**arguments: Any) -> dict[str, Any]:
    return {"sft": arguments}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "shuffles": ({"without": "train_sampling_strategy"}, "expected SequentialSampler"),
    "rebalances": (sft(train_sampling_strategy="batch_rebalance"), "expected SequentialSampler"),
    "groups": (sft(train_sampling_strategy="group_by_length"), "found LengthGroupedSampler"),
    "splits": (sft(accelerator_config={"split_batches": True}), "split_batches: found true"),
    "cuts": (sft(max_length=20), r"max_length: found 20, expected none: .* rows of up to \d\d"),
    "prepares": ({"without": "dataset_kwargs"}, "dataset_kwargs: found no skip_prepare_dataset"),
    "packs": (sft(packing=True, max_length=LENGTH), "packing: found true, expected false"),
    "has others": ({"change": shuffled}, "train_dataset: found another dataset"),
}
REFUSED_PACKED: dict[str, tuple[dict[str, Any], str]] = {
    "cuts": (sft(max_length=LENGTH - 1), f"max_length: found {LENGTH - 1}, expected none"),
    "drops": (sft(remove_unused_columns=True), "remove_unused_columns: found true, which drops"),
    "collates": ({"change": own_collator}, "found DataCollatorForLanguageModeling, expected the"),
}


def refused(make: Make, packing: bool, changes: dict[str, Any], message: str) -> None:
    run, trainer = make(packing, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        run.attach(trainer)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("trainer: ")
    assert not (Path(trainer.args.output_dir) / "manifest.json").exists()
    assert "LossNormalization" not in names(trainer)


@pytest.mark.parametrize("case", REFUSED)
def test_a_trainer_that_would_change_the_rows_is_refused(make: Make, case: str) -> None:
    refused(make, False, *REFUSED[case])


@pytest.mark.parametrize("case", REFUSED_PACKED)
def test_a_trainer_that_would_change_packed_rows_is_refused(make: Make, case: str) -> None:
    refused(make, True, *REFUSED_PACKED[case])


def test_another_batch_or_length_than_the_mix_was_made_for_is_refused(make: Make) -> None:
    run, trainer = make()
    trainer.args.gradient_accumulation_steps = 4
    with pytest.raises(ConfigError, match=r"found batches of .*accumulation=4.*, expected "):
        run.attach(trainer)
    trainer.args.gradient_accumulation_steps = 2
    trainer.args.max_steps = 4
    with pytest.raises(ConfigError, match="max_steps: found 4, expected 3"):
        run.attach(trainer)


def test_a_trainer_is_attached_to_once(make: Make) -> None:
    run, trainer = make()
    run.attach(trainer)
    with pytest.raises(ConfigError, match="trainer: found a LossNormalization"):
        run.attach(trainer)


def test_the_collator_is_the_one_that_the_model_needs(make: Make) -> None:
    run, trainer = make(True)
    trainer.model.config._attn_implementation = "flash_attention_2"  # what it is told by
    run.attach(trainer)
    assert isinstance(trainer.data_collator, PackedCollator)
    assert trainer.data_collator.flatten
    # The holdout is not packed; the same collator takes it as rows of one document.
    batch = PackedCollator(run.tokenizer)(list(run.eval_dataset or ()))
    assert batch["input_ids"].shape[0] == 2
    assert (batch["position_ids"][:, 0] == 0).all()


def test_passes_over_general_data_set_the_number_of_steps(make: Make) -> None:
    run, trainer = make(keys={"general_passes": 2}, sft={"max_steps": -1})
    # 38 general rows at 0.8 of batches of 4: 76 / 3.2
    assert run.steps == trainer.args.max_steps == 24
    run.attach(trainer)
    with pytest.raises(ConfigError, match="max_steps: missing"):
        make(sft={"max_steps": -1})


def test_an_adapter_begins_with_the_seeds_weights(make: Make) -> None:
    import torch
    from peft import LoraConfig

    def begin(seed: int, before: int) -> Any:
        def draw(run: TrainingRun, given: dict[str, Any]) -> None:
            given["peft_config"] = LoraConfig(target_modules="all-linear")

        torch.manual_seed(before)  # what another process would have come to
        _, trainer = make(change=draw, sft={"seed": seed})
        return next(w for n, w in trainer.model.named_parameters() if "lora_A" in n).detach()

    first, again, other = begin(5, 1), begin(5, 2), begin(6, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_section_is_read_from_a_recipe(section: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"base_model": "x", "agenttuning": section}), "utf-8")
    assert AgentTuningConfig.from_yaml(recipe) == AgentTuningConfig(**section)
    recipe.write_text(json.dumps({"agenttuning": {**section, "etta": 1}}), "utf-8")
    for read in (
        lambda: AgentTuningConfig.from_yaml(recipe),
        lambda: AgentTuningConfig(**section, etta=1),
    ):
        with pytest.raises(ConfigError, match=r"agenttuning\.etta: unknown key, did you mean eta"):
            read()
    recipe.write_text("base_model: x\n", "utf-8")
    with pytest.raises(ConfigError, match="agenttuning: the section is missing"):
        AgentTuningConfig.from_yaml(recipe)
    with pytest.raises(SourceNotFoundError, match="no such recipe"):
        AgentTuningConfig.from_yaml(tmp_path / "none.yaml")
