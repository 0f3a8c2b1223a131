"""`agenttuning check` on every shipped recipe: without the hub, and with its files in the cache."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")

from agenttuning_plugin.estimates.known_models import stored_models

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(p for p in (ROOT / "recipes").iterdir() if p.suffix in (".yaml", ".py"))
YAMLS = [path for path in RECIPES if path.suffix == ".yaml"]
LLAMA = [ROOT / "recipes" / n for n in ("agentlm-7b-qlora.yaml", "agentlm-13b.yaml", "trl_sft.py")]
WIDTH, LINES = 100, 40

pytestmark = pytest.mark.slow

Checks = dict[str, dict[str, Any]]


def checked(recipes: list[Path], hub: Path) -> Checks:
    """Check recipes in one process, with the hub's cache in a folder and no network."""
    told = ("DO_NOT_TRACK", "AXOLOTL_DO_NOT_TRACK")
    kept = {name: value for name, value in os.environ.items() if name not in told}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.check_recipes", *map(str, recipes)],
        env={**kept, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *reports, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last == {"telemetry": False}
    return {Path(report["recipe"]).name: report for report in reports}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Checks:
    """All recipes with an empty cache."""
    return checked(RECIPES, tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Checks:
    """Recipes of Llama 2 with its tokenizer and the data in the hub's cache."""
    hub = tmp_path_factory.mktemp("hub")
    agent = _repository(hub, "datasets", "zai-org/AgentInstruct")
    shutil.copytree(shared / "data/agentinstruct_hub/data", agent / "data")
    general = _repository(hub, "datasets", "anon8231489123/ShareGPT_Vicuna_unfiltered")
    name = "ShareGPT_V3_unfiltered_cleaned_split.json"
    shutil.copyfile(shared / "data/sharegpt/sharegpt_v3_sample.json", general / name)
    for model in ("7b", "13b"):
        folder = _repository(hub, "models", f"meta-llama/Llama-2-{model}-chat-hf")
        for file in (shared / "data/tokenizers/llama2").iterdir():
            shutil.copyfile(file, folder / file.name)
        config = stored_models()[f"meta-llama/Llama-2-{model}-chat-hf"]["config"]
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return checked(LLAMA, hub)


def _repository(hub: Path, kind: str, name: str) -> Path:
    """Make a repository of the hub's cache; return the folder of its files."""
    folder = hub / "hub" / f"{kind}--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    files = folder / "snapshots" / ("0" * 40)
    files.mkdir(parents=True)
    return files


def findings(report: dict[str, Any], what: str) -> list[str]:
    return [each["detail"] for each in report["findings"] if each["what"] == what]


def rows_of_screen(report: dict[str, Any]) -> int:
    return sum(max(1, math.ceil(len(line) / WIDTH)) for line in report["screen"])


@pytest.mark.parametrize("recipe", YAMLS, ids=lambda p: p.name)
def test_a_recipe_is_checked_without_the_hub(recipe: Path, offline: Checks) -> None:
    report = offline[recipe.name]
    assert [each["detail"] for each in report["findings"] if each["level"] == "error"] == [] or (
        recipe.name == "demo.yaml"  # whose data is made by `agenttuning demo --prepare`
    )
    assert findings(report, "Axolotl")[0].endswith("accepts it")
    assert rows_of_screen(report) <= LINES
    if recipe.name != "demo.yaml":
        assert "not read here" in findings(report, "agent source")[0]
        assert report["facts"]["memory"]["total"] > 2**30  # from a stored configuration
        assert report["facts"]["disk"]["needed"] > 0


@pytest.mark.parametrize("recipe", [p for p in RECIPES if p.suffix == ".py"], ids=lambda p: p.name)
def test_a_script_without_its_tokenizer_is_one_line(recipe: Path, offline: Checks) -> None:
    (wrong,) = findings(offline[recipe.name], "script")
    assert "not in the hub's cache, and the hub is not reachable from here" in wrong


@pytest.mark.parametrize("recipe", LLAMA, ids=lambda p: p.name)
def test_a_recipe_is_checked_with_what_the_hubs_cache_has(recipe: Path, cached: Checks) -> None:
    report = cached[recipe.name]
    assert report["ok"]
    assert rows_of_screen(report) <= LINES
    facts = report["facts"]
    assert facts["sampled"] is False
    assert facts["mix"]["agent_share"]["examples"] == pytest.approx(0.2, abs=0.005)
    assert facts["loss"]["agent_share"] < facts["mix"]["agent_share"]["examples"]
    assert "64 " in findings(report, "steps")[0]  # rows of a step, over all processes
    sizes = {each["side"]: each["records"] for each in facts["sources"]}
    assert sizes == {"agent": 759, "general": 700}
    assert "trained with their end '</s>'" in findings(report, "template")[0]
    assert not findings(report, "model")
