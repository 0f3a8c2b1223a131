"""Keys of a recipe under Axolotl: sweeps reach the section, void and misspelt keys are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agenttuning_plugin.config.rules import REPLACED_KEYS
from dataset_builders.errors import ConfigError

# What the plugin takes over from the code that it replaces, or what decides on no row.
HONOURED = {
    *("sequence_len", "excess_length_strategy", "sample_packing", "eval_sample_packing"),
    *("sample_packing_group_size", "seed", "dataset_prepared_path", "max_steps", "batch_size"),
    *("micro_batch_size", "gradient_accumulation_steps", "num_epochs", "eot_tokens"),
    *("chat_template", "chat_template_jinja", "special_tokens", "added_tokens_overrides"),
    *("default_system_message", "tokenizer_config", "tokenizer_use_mistral_common"),
    *("curriculum_sampling", "base_model", "trust_remote_code", "hf_use_auth_token"),
    *("dataloader_drop_last", "total_num_tokens", "total_supervised_tokens", "is_preprocess"),
    *("local_rank", "accelerator_config"),
    # Speed only, or how processes divide the work.
    *("dataset_num_proc", "dataset_processes", "dataset_keep_in_memory", "ddp_timeout"),
    *("fsdp", "fsdp_config", "fsdp_version", "deepspeed", "dp_shard_size", "dp_replicate_size"),
    *("tensor_parallel_size", "context_parallel_size", "expert_parallel_size", "use_ray"),
    *("torch_compile", "torch_compile_backend", "bf16", "fp16", "fp8", "pad_to_sequence_len"),
    *("attn_implementation", "lora_fp32_gradients", "torch_compile_regional"),
}
DATA_CODE = ("utils/data/sft.py", "utils/data/shared.py", "utils/data/utils.py")
DATA_CODE += ("utils/data/wrappers.py", "utils/data/streaming.py", "utils/trainer.py")


def small_recipe(path: Path, base: Path, **keys: Any) -> Path:
    recipe = {
        "base_model": str(base),
        "plugins": ["agenttuning_plugin.AgentTuningPlugin"],
        "agenttuning": {"eta": 0.2, "agent": "agent.jsonl", "general": "chat.jsonl"},
        "sequence_len": 512,
        "max_steps": 4,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "output_dir": str(path / "out"),
        "bf16": False,
        **keys,
    }
    place = path / "recipe.yaml"
    place.write_text(yaml.safe_dump(recipe), "utf-8")
    return place


@pytest.mark.usefixtures("axolotl_process")
@pytest.mark.parametrize("key", ["agenttuning__eta", "agenttuning.eta"])
def test_each_point_of_a_sweep_has_its_own_eta(
    key: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    from axolotl.cli.config import load_cfg
    from axolotl.cli.utils import generate_config_files

    base = small_recipe(tmp_path, tiny_model_dir)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(yaml.safe_dump({key: [0, 0.5, 1.0]}), "utf-8")
    points = [load_cfg(name) for name, _ in generate_config_files(str(base), str(sweep))]
    assert sorted(point.agenttuning.eta for point in points) == [0.0, 0.5, 1.0]


@pytest.mark.usefixtures("axolotl_process")
def test_an_override_of_the_command_line_reaches_the_section(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    from axolotl.cli.config import load_cfg

    base = str(small_recipe(tmp_path, tiny_model_dir))
    # As fire hands flags on: --agenttuning__eta 0.7 --agenttuning.holdout 3 ...
    flags = {"agenttuning__eta": 0.7, "agenttuning.holdout": 3, "agenttuning__evaluation__every": 2}
    section = load_cfg(base, **flags).agenttuning
    assert (section.eta, section.holdout, section.evaluation.every) == (0.7, 3, 2)


@pytest.mark.usefixtures("axolotl_process")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"gradient_acumulation_steps": 8},
            "gradient_acumulation_steps: unknown key, which Axolotl would drop, did you mean "
            "gradient_accumulation_steps?",
        ),
        ({"learning_rte": 1}, "did you mean learning_rate?"),
        ({"agenttuning_eta": 0.1}, "agenttuning_eta: unknown key"),
        ({"train_on_eos": "all"}, "train_on_eos: found 'all', expected nothing"),
        ({"roles_to_train": []}, "roles_to_train: found []"),
        ({"shuffle_merged_datasets": False}, "shuffle_merged_datasets: found False"),
        ({"dataset_exact_deduplication": True}, "dataset_exact_deduplication: found True"),
        (
            {"train_on_inputs": True, "min_sample_len": 9, "sequence_length": 7},
            r"sequence_length: unknown key.*; train_on_inputs: .*; min_sample_len: found 9",
        ),
    ],
)
def test_a_key_that_would_change_nothing_stops_the_run(
    keys: dict[str, Any], message: str, tmp_path: Path, tiny_model_dir: Path
) -> None:
    from axolotl.cli.config import load_cfg

    with pytest.raises(ConfigError, match=message if ".*" in message else re.escape(message)):
        load_cfg(str(small_recipe(tmp_path, tiny_model_dir, **keys)))


@pytest.mark.usefixtures("axolotl_process")
def test_keys_of_another_plugin_are_known(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axolotl.cli.config import load_cfg

    from agenttuning_plugin.trainers import axolotl as plugin

    plugins = ["axolotl.integrations.liger.LigerPlugin", "agenttuning_plugin.AgentTuningPlugin"]
    keys = {
        "plugins": plugins,
        "liger_rope": False,
        "remark_of_mine": "fast",
        "fsdp_config": {"reshard_after_forwrd": True, "offload_params": False},
        "lr_scheduler_kwargs": {"anything": 1},
    }
    warned: list[str] = []
    # Not caplog: whether Axolotl's loggers propagate depends on what has been imported.
    monkeypatch.setattr(plugin.LOG, "warning", lambda _, line: warned.append(line))
    load_cfg(str(small_recipe(tmp_path, tiny_model_dir, **keys)))
    assert warned == [
        "remark_of_mine: unknown key, which Axolotl would drop",
        "fsdp_config.reshard_after_forwrd: unknown key, which Axolotl would drop, did you mean "
        "reshard_after_forward?",
    ]


def test_every_key_of_the_replaced_code_is_honoured_or_refused() -> None:
    axolotl = pytest.importorskip("axolotl")
    from axolotl.utils.schemas.config import AxolotlInputConfig

    package = Path(axolotl.__file__).parent
    code = "".join((package / name).read_text("utf-8") for name in DATA_CODE)
    read = set(re.findall(r"\bcfg\.(?:get\(\")?(\w+)", code)) & set(AxolotlInputConfig.model_fields)
    assert "dataset_exact_deduplication" in read
    assert read - HONOURED - REPLACED_KEYS == set()


@pytest.mark.usefixtures("axolotl_process")
def test_registering_twice_changes_nothing(tmp_path: Path, tiny_model_dir: Path) -> None:
    from axolotl.cli.config import load_cfg, prepare_plugins

    cfg = load_cfg(str(small_recipe(tmp_path, tiny_model_dir)))
    before = cfg.to_dict()
    prepare_plugins(cfg)  # as a Ray worker does
    assert cfg.to_dict() == before


@pytest.mark.usefixtures("axolotl_process")
@pytest.mark.parametrize(("keys", "seed"), [({}, 42), ({"seed": 0}, 0), ({"seed": 7}, 7)])
def test_the_mix_has_the_trainers_seed(
    keys: dict[str, Any], seed: int, tmp_path: Path, tiny_model_dir: Path
) -> None:
    from axolotl.cli.config import load_cfg
    from axolotl.integrations.base import PluginManager

    for name in ("agent", "chat"):
        turns = [{"role": "user", "content": name}, {"role": "assistant", "content": "Yes."}]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": turns}) + "\n", "utf-8")
    section = {
        "agent": str(tmp_path / "agent.jsonl"),
        "general": str(tmp_path / "chat.jsonl"),
        "holdout": 0,
    }
    recipe = small_recipe(tmp_path, tiny_model_dir, agenttuning=section, **keys)
    cfg = load_cfg(str(recipe), dataset_prepared_path=str(tmp_path / "prepared"))
    PluginManager.get_instance().load_datasets(cfg, preprocess=False)
    report = json.loads((tmp_path / "out/agenttuning_report.json").read_text("utf-8"))
    assert report["mix"]["seed"] == seed
