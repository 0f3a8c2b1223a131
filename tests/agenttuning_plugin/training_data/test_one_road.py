"""A run locates, detects, hashes and reads each source once, and describes its mix once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml

from agenttuning_plugin.training_data.build import build_to_disk
from dataset_builders.mixing import mix_report
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.readers import building, files
from dataset_builders.sources import detection
from tests.support.source_files import write_sides
from tests.support.trainer_settings import checkpointing

# By the name in the counts: the function, and what tells one source from another.
COUNTED: dict[str, tuple[Any, Callable[..., str]]] = {
    "located": (files.locate, lambda path, **_: Path(path).name),
    "detected": (detection.detect_format, lambda spec, *_: Path(spec.path).name),
    "hashed": (files.content_fingerprint, lambda located: located.files[0].name),
    "parsed": (building.every_record, lambda located, *_: located.files[0].name),
    "described": (mix_report.describe_mix, lambda *_: "mix"),
}
ONCE = {"agent.jsonl": 1, "general.jsonl": 1}
DRAWS = {False: 1, True: 2}
"""By packing: too few examples are drawn at first to fill these few rows."""

Counts = dict[str, Counter[str]]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Calls of the real functions, by source, wherever they are imported."""
    import agenttuning_plugin.trainers.axolotl_build  # what a run imports
    import agenttuning_plugin.training_data.run  # noqa: F401

    found: Counts = {name: Counter() for name in (*COUNTED, "materialised")}
    for name, (function, key) in COUNTED.items():

        def counted(*args: Any, _of: Any = function, _at: Any = (name, key), **options: Any) -> Any:
            found[_at[0]][_at[1](*args, **options)] += 1
            return _of(*args, **options)

        wrapped = wraps(function)(counted)
        for module in [each for n, each in sys.modules.items() if n.startswith(PACKAGES)]:
            for attribute, value in list(vars(module).items()):
                if value is function:
                    monkeypatch.setattr(module, attribute, wrapped)
    whole = MixOrder.slice

    def sliced(order: MixOrder, start: int, end: int) -> Any:
        if (start, end) == (0, order.num_examples):
            found["materialised"]["order"] += 1
        return whole(order, start, end)

    monkeypatch.setattr(MixOrder, "slice", sliced)
    return found


PACKAGES = ("agenttuning_plugin.", "dataset_builders.")


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """Two files whose format has to be detected."""
    return write_sides(tmp_path, agent=12, general=40)


def check(counts: Counts, *, parsed: bool, materialised: int) -> None:
    """Compare the counts with what one run may do, and begin anew."""
    assert counts["located"] == counts["detected"] == counts["hashed"] == ONCE
    assert counts["parsed"] == (ONCE if parsed else {})
    assert counts["described"] == {"mix": 1}
    assert counts["materialised"]["order"] == materialised
    for counter in counts.values():
        counter.clear()


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
def test_an_axolotl_run_looks_at_each_source_once(
    sources: dict[str, str],
    on_cpu: Callable[..., Path],
    load: Callable[[Path], tuple[Any, Any]],
    counts: Counts,
    tmp_path: Path,
    packing: bool,
) -> None:
    section = {**sources, "chat_template": "llama-2", "holdout": 2}
    recipe = on_cpu(
        "agentlm-7b",
        agenttuning=section,
        sample_packing=packing,
        dataset_prepared_path=str(tmp_path / "prepared"),
        sequence_len=256,
    )
    for cold in (True, False):
        cfg, _ = load(recipe)
        assert (Path(cfg.output_dir) / "manifest.json").is_file()
        check(counts, parsed=cold, materialised=DRAWS[packing])


@pytest.mark.parametrize("packing", [False, True], ids=["plain", "packed"])
def test_a_trl_run_looks_at_each_source_once(
    sources: dict[str, str],
    tiny_model_dir: Path,
    counts: Counts,
    tmp_path: Path,
    packing: bool,
    one_thread: None,
) -> None:
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    from transformers import AutoTokenizer

    from agenttuning_plugin import AgentTuningConfig, TrainingRun, sft_defaults

    arguments: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(packing=packing),
    }
    for cold in (True, False):
        args = trl.SFTConfig(**arguments)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
        config = AgentTuningConfig(**sources, holdout=2)
        cache = tmp_path / "prepared"
        run = TrainingRun(config, tokenizer, args, max_length=96, packing=packing, cache=cache)
        trainer = trl.SFTTrainer(
            str(tiny_model_dir),
            args,
            train_dataset=run.train_dataset,
            data_collator=run.data_collator,
            processing_class=tokenizer,
        )
        run.attach(trainer)
        assert (tmp_path / "out/manifest.json").is_file()
        check(counts, parsed=cold, materialised=DRAWS[packing])


@pytest.mark.parametrize("tokenizer", [True, False], ids=["tokens", "messages"])
def test_build_looks_at_each_source_once(
    sources: dict[str, str], tiny_model_dir: Path, counts: Counts, tmp_path: Path, tokenizer: bool
) -> None:
    build_to_disk(
        tmp_path / "out",
        agent=[sources["agent"]],
        general=[sources["general"]],
        plan=Plan(0.25, block=8),
        num_examples=40,
        seed=1,
        tokenizer=str(tiny_model_dir) if tokenizer else None,
        encoding=Encoding(max_length=256) if tokenizer else None,
    )
    check(counts, parsed=True, materialised=1)


def test_build_of_a_recipe_looks_at_each_source_once(
    sources: dict[str, str],
    on_cpu: Callable[..., Path],
    axolotl_process: None,
    counts: Counts,
    tmp_path: Path,
) -> None:
    from agenttuning_plugin.trainers.axolotl_build import build_recipe

    section = {**sources, "chat_template": "llama-2", "holdout": 2}
    recipe = on_cpu("agentlm-7b", agenttuning=section, sample_packing=False, sequence_len=256)
    text = yaml.safe_load(recipe.read_text("utf-8"))
    del text["dataset_prepared_path"]
    recipe.write_text(yaml.safe_dump(text))
    build_recipe(tmp_path / "built", recipe)
    check(counts, parsed=True, materialised=1)
