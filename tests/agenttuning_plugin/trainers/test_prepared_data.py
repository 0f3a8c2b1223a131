"""`axolotl preprocess` and `axolotl train` share the plugin's cache, which is never stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Load = Callable[[Path], tuple[Any, Any]]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"question {number}"},
                        {"role": "assistant", "content": f"answer {number}"},
                    ]
                }
            )
            + "\n"
            for number in range(30)
        ),
        "utf-8",
    )
    return path


@pytest.fixture
def recipe(on_cpu: Callable[..., Path], chats: Path, tmp_path: Path) -> Path:
    section = {"eta": 0, "general": str(chats), "holdout": 3, "chat_template": "llama-2"}
    return on_cpu(
        "agentlm-7b-qlora",
        agenttuning=section,
        sample_packing=None,
        dataset_prepared_path=str(tmp_path / "prepared"),
        max_steps=5,
        micro_batch_size=4,
    )


def entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "prepared/agenttuning").iterdir() if path.is_dir()]


def test_preprocess_and_train_warn_of_what_is_lost(
    recipe: Path, load: Load, chats: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import yaml
    from axolotl.integrations.base import PluginManager

    long = {"role": "assistant", "content": "word " * 3000}
    row = {"messages": [{"role": "user", "content": "q"}, long]}
    with chats.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**row, "id": f"{number}"}) + "\n" for number in range(4))
    settings = yaml.safe_load(recipe.read_text("utf-8"))
    recipe.write_text(yaml.safe_dump(settings | {"excess_length_strategy": "drop"}), "utf-8")
    # The second time the rows come from the cache.
    for preprocess in (True, False):
        caplog.clear()
        with caplog.at_level("WARNING", logger="axolotl.agenttuning"):
            cfg, _ = load(recipe) if not preprocess else (None, None)
            if preprocess:
                from axolotl.cli.config import load_cfg

                cfg = load_cfg(str(recipe))
                PluginManager.get_instance().load_datasets(cfg, preprocess=True)
        found = [x.getMessage() for x in caplog.records if "give no row" in x.getMessage()]
        assert len(found) == 1
        assert found[0].startswith("general: 4 of 34 (12%) conversations give no row: too_long 4; ")


def test_preprocess_fills_the_cache_and_train_reuses_it(
    recipe: Path, load: Load, tmp_path: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from axolotl.cli.args import PreprocessCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.preprocess import do_preprocess

    do_preprocess(load_cfg(str(recipe)), PreprocessCliArgs())
    (entry,) = entries(tmp_path)

    import agenttuning_plugin.training_data.encoded_sources as data

    real = data.prepare

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("encoded again")

    monkeypatch.setattr(data, "prepare", refuse)
    cfg, first = load(recipe)
    assert entries(tmp_path) == [entry]
    assert (len(first.train_dataset), first.total_num_steps) == (20, 5)
    assert len(first.eval_dataset) == 3
    assert set(first.train_dataset.column_names) == {"input_ids", "labels", "attention_mask"}
    report = json.loads((Path(cfg.output_dir) / "agenttuning_report.json").read_text("utf-8"))
    assert report["mix"]["examples"] == 20

    monkeypatch.setattr(data, "prepare", real)
    chats.write_text(chats.read_text("utf-8").replace("answer", "ANSWER"), "utf-8")
    _, second = load(recipe)
    assert len(entries(tmp_path)) == 2
    assert second.train_dataset["input_ids"][:] != first.train_dataset["input_ids"][:]


def test_the_sampler_keeps_the_order(recipe: Path, load: Load) -> None:
    cfg, _ = load(recipe)
    assert cfg.curriculum_sampling is True


def test_an_override_on_the_command_line_reaches_the_mix(
    recipe: Path, axolotl_process: None, hub_data: dict[str, Path]
) -> None:
    from axolotl.cli.config import load_cfg
    from axolotl.integrations.base import PluginManager

    overrides = {"agenttuning__eta": 1.0, "agenttuning__agent": str(hub_data["agent"])}
    cfg = load_cfg(str(recipe), **overrides)
    data = PluginManager.get_instance().load_datasets(cfg, preprocess=False)
    report = json.loads((Path(cfg.output_dir) / "agenttuning_report.json").read_text("utf-8"))
    assert report["mix"]["share_of_examples"] == 1.0
    assert data.eval_dataset is not None


def test_errors_of_ours_are_shown_without_traceback(
    recipe: Path, axolotl_process: None, capfd: pytest.CaptureFixture[str]
) -> None:
    import sys

    from axolotl.cli.config import load_cfg

    from dataset_builders.errors import ConfigError

    try:
        load_cfg(str(recipe), agenttuning__eta=1.5)
    except ConfigError:
        capfd.readouterr()
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    err = capfd.readouterr().err
    assert err.startswith("agenttuning: error: agenttuning.eta: found 1.5")
    assert len(err.splitlines()) == 1


def test_the_options_of_a_source_pass_through_axolotl(
    recipe: Path, load: Load, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    turns = [
        {"role": role, "content": f"{role}{number}"}
        for number in range(4)
        for role in ("user", "assistant")
    ]
    chats.write_text("".join(f"{json.dumps({'messages': turns})}\n" for _ in range(4)), "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def pick(conversation):\n    return [5, 7]\n", "utf-8")
    options = {"train_on": "./mine.py:pick", "rows": "per_turn", "keep_last_turns": 1}
    settings = yaml.safe_load(recipe.read_text("utf-8"))
    source = {"path": str(chats), "format": "messages", "reasoning": "drop", **options}
    settings["agenttuning"] |= {"general": source, "holdout": 0}
    recipe.write_text(yaml.safe_dump(settings), "utf-8")
    cfg, meta = load(recipe)
    assert cfg.agenttuning["general"][0]["keep_last_turns"] == 1
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(cfg.base_model)
    rows = [tokenizer.decode(row["input_ids"]) for row in meta.train_dataset]
    trained = {
        tokenizer.decode([i for i in row["labels"] if i >= 0]).strip() for row in meta.train_dataset
    }
    assert {text.removesuffix("</s>").strip() for text in trained} == {"assistant2", "assistant3"}
    assert any("[NOTICE] 4 messages are omitted." in text for text in rows)
    assert all("assistant0" not in text for text in rows)
