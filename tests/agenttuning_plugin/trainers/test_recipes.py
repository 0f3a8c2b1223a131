"""What the shipped recipes say, and that a wrong one is refused before it trains."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import agenttuning_plugin
from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.config.shipped import headline, recipe_names, shipped_recipe
from agenttuning_plugin.preflight.check import check
from agenttuning_plugin.training_data.trainer_checks import sft_defaults
from dataset_builders.errors import ConfigError

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
YAMLS = sorted(path.stem for path in RECIPES.glob("*.yaml"))
AGENTLM = [name for name in YAMLS if name.startswith("agentlm-")]
STUDIES = [name for name in YAMLS if name.startswith("study-")]
CURRENT = [name for name in YAMLS if name not in (*AGENTLM, *STUDIES, "demo")]
FULL = [name for name in AGENTLM if not name.endswith("-qlora")]
PAPER = {"7b": 5e-5, "13b": 5e-5, "70b": 1e-5}  # learning rates (paper)
QLORA = {"7b": 2e-4, "13b": 2e-4, "70b": 1e-4}  # scripts of artidoro/qlora


def text(name: str) -> str:
    return (RECIPES / f"{name}.yaml").read_text("utf-8")


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text(name))
    return loaded


def keys_without_comment(recipe: str) -> list[str]:
    """Keys that no comment explains: on their line, above them, or above or at their parent."""
    bare: list[str] = []
    explained: dict[int, bool] = {}  # by indent, of the key that is open there
    above = False
    for line in recipe.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            above = bool(stripped)
            continue
        indent = len(line) - len(line.lstrip())
        explained = {depth: known for depth, known in explained.items() if depth < indent}
        known = above or " #" in line
        if re.match(r"(- )?[\w]+:|- ", stripped):
            if not known and not any(explained.values()) and not stripped.endswith(":"):
                bare.append(stripped)
            explained[indent] = known
        above = False
    return bare


def test_comments_are_told_from_their_absence() -> None:
    assert keys_without_comment("a: 1 # why\n# why\nb: 2\nc:\n  d: 3\n") == ["d: 3"]
    assert keys_without_comment("a: # why\n  b: 1\n  c: 2\nd: 1\n") == ["d: 1"]


@pytest.mark.parametrize("name", YAMLS)
def test_every_key_says_why(name: str) -> None:
    assert keys_without_comment(text(name)) == []


@pytest.mark.parametrize("name", YAMLS)
def test_header_gives_command_hardware_and_expectation(name: str) -> None:
    header = text(name).split("\n\n", 1)[0]
    launcher = "python -m" if "use_ray" in read(name) else "accelerate launch"
    command = ("agenttuning sweep",) if name in STUDIES else (launcher, "axolotl.cli.train")
    for part in (*command, "Hardware:", "Expected"):
        assert part in header


def test_every_recipe_is_listed() -> None:
    table = (RECIPES / "README.md").read_text("utf-8")
    scripts = {"trl_sft.py", "trl_qwen3_8b.py"}
    assert {f"{name}.yaml" for name in YAMLS} | scripts == set(recipe_names())
    for name in recipe_names():
        assert f"`{name}`" in table
        assert headline(shipped_recipe(name))


@pytest.mark.parametrize("name", YAMLS)
def test_data_comes_from_the_plugin_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = read(name)
    recipe.pop("sweep", None)
    # Where `agenttuning demo --prepare` puts a model.
    if recipe["base_model"].startswith("~"):
        Path(recipe["base_model"]).expanduser().mkdir(parents=True)
    assert "datasets" not in recipe
    assert check_recipe(recipe).eta == 0.2


@pytest.mark.parametrize("name", AGENTLM)
def test_settings_are_the_papers(name: str) -> None:
    recipe = read(name)
    size = name.split("-")[1]
    assert recipe["base_model"] == f"meta-llama/Llama-2-{size}-chat-hf"
    assert recipe["learning_rate"] == (PAPER if name in FULL else QLORA)[size]
    assert recipe["sequence_len"] == 4096
    assert recipe["sample_packing"] is True
    assert recipe["max_steps"] == 2000
    assert recipe["warmup_ratio"] == 0.02
    assert recipe["lr_scheduler"] == "cosine"
    assert "adamw" in recipe["optimizer"]
    assert recipe["agenttuning"]["chat_template"] == "llama-2"


@pytest.mark.parametrize("name", AGENTLM)
def test_global_batch_is_the_papers(name: str) -> None:
    assert global_batch(name) == 64


@pytest.mark.parametrize("name", CURRENT)
def test_recipes_of_current_bases_differ_where_they_say(name: str) -> None:
    first, recipe = read("qwen3-8b-qlora"), read(name)
    assert global_batch(name) == (
        64 if recipe["base_model"].endswith("70B-Instruct") or "fsdp_config" in recipe else 32
    )
    for key in (
        "sequence_len",
        "max_steps",
        "warmup_ratio",
        "lr_scheduler",
        "weight_decay",
        "seed",
    ):
        assert recipe[key] == first[key], key
    for key in ("eta", "agent", "general", "holdout"):
        assert recipe["agenttuning"][key] == first["agenttuning"][key], key
    if recipe.get("adapter"):
        for key in ("adapter", "load_in_4bit", "lora_r", "lora_alpha", "learning_rate"):
            assert recipe[key] == first[key], key


def global_batch(name: str) -> int:
    """Rows of a step, which the recipe's own comment and command must give."""
    recipe = read(name)
    header = re.search(r"--num_processes (\d+)", text(name))
    said = re.search(r"gradient_accumulation_steps: .*# (\d+) x (\d+) x (\d+) GPU", text(name))
    processes = recipe.get("ray_num_workers") or int(header[1] if header else 0)
    assert said
    sizes = [int(size) for size in said.groups()]
    assert sizes == [recipe["micro_batch_size"], recipe["gradient_accumulation_steps"], processes]
    return sizes[0] * sizes[1] * sizes[2]


@pytest.mark.parametrize("name", [*AGENTLM, *CURRENT])
def test_sharded_recipes_only_read(name: str) -> None:
    recipe = read(name)
    kinds = {evaluator["type"] for evaluator in recipe["agenttuning"]["evaluators"]}
    zero = (recipe.get("deepspeed") or {}).get("zero_optimization", {})
    sharded = "fsdp_config" in recipe or zero.get("stage") == 3
    assert ("agent_task" in kinds) == (not sharded)
    if sharded:
        assert kinds == {"replay", "general_loss"}
        assert f"agenttuning evaluate --model {recipe['output_dir']}" in text(name)


@pytest.mark.parametrize("name", [*AGENTLM, *CURRENT])
def test_check_accepts(name: str, axolotl_process: None) -> None:
    findings = check(RECIPES / f"{name}.yaml")
    assert not [finding for finding in findings if finding.level == "error"]
    found = {finding.what: finding.detail for finding in findings}
    assert found["Axolotl"].endswith("accepts it")
    assert "zai-org/AgentInstruct" in found["agent source"]


def edited(folder: Path, old: str, new: str) -> Path:
    recipe = text("agentlm-7b-qlora")
    assert old in recipe
    path = folder / "edited.yaml"
    path.write_text(recipe.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  eta: 0.2", "  etta: 0.2", "agenttuning.etta: unknown key"),
        ("num_tasks", "num_task", "agenttuning.evaluators.0.agent_task.num_task: unknown key"),
        ("\nagenttuning:", "\nagenttunning:", "agenttuning: the section is missing"),
        ("eta: 0.2", "eta: 2", "agenttuning.eta: found 2"),
        ("max_steps: 2000", "max_step: 2000", "max_steps: missing"),
    ],
)
def test_misspelt_keys_are_refused(
    old: str, new: str, message: str, tmp_path: Path, axolotl_process: None
) -> None:
    from axolotl.cli.config import load_cfg

    path = edited(tmp_path, old, new)
    wrong = [finding.detail for finding in check(path) if finding.level == "error"]
    assert [line for line in wrong if message in line], wrong
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_cfg(str(path))


def test_recipe_without_its_plugin_does_not_train(
    axolotl_process: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from axolotl.cli.config import prepare_plugins
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    monkeypatch.setitem(sys.modules, "agenttuning_plugin.trainers.axolotl", None)
    # An earlier test may have left the class there: an exported name is imported once.
    monkeypatch.delitem(vars(agenttuning_plugin), "AgentTuningPlugin", raising=False)
    cfg = DictDefault(read("agentlm-7b-qlora"))
    if "required" in inspect.signature(PluginManager.register).parameters:  # Axolotl 0.21
        with pytest.raises(ImportError, match="agenttuning_plugin"):
            prepare_plugins(cfg)
    else:
        prepare_plugins(cfg)
        assert "agenttuning_plugin" in capsys.readouterr().out  # all that Axolotl does about it
        with pytest.raises(ValidationError, match="datasets"):
            validate_config(cfg)

    found = check(RECIPES / "agentlm-7b-qlora.yaml")
    (wrong,) = [finding.detail for finding in found if finding.level == "error"]
    assert "AgentTuningPlugin cannot be imported" in wrong


def _sft_arguments(text: str) -> dict[str, Any]:
    """What a text's first call of SFTConfig sets."""
    call = re.search(r"SFTConfig\((?:[^()]|\([^()]*\))*\)", text)
    assert call is not None
    found: dict[str, Any] = eval(call[0], {"SFTConfig": dict, "sft_defaults": sft_defaults})
    return found


def test_settings_for_trl_keep_rows_whole_and_in_order() -> None:
    # TRL's own defaults: 1,024 tokens a row (up to 1.7 whatever the rows are), and shuffled.
    wanted = {
        "max_length": None,
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    assert wanted.items() <= sft_defaults(packing=True).items()
    for path in (*RECIPES.glob("trl_*.py"), RECIPES.parent / "README.md"):
        assert wanted.items() <= _sft_arguments(path.read_text("utf-8")).items()
