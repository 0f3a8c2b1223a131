"""Both trainers train on exactly the packed rows, in order, through their own loops."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agenttuning_plugin.training_data.collator import PackedCollator
from agenttuning_plugin.training_data.packed_dataset import pack_mix
from agenttuning_plugin.training_data.trainer_checks import sft_defaults
from dataset_builders.encoding.row_index import index_of
from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.mixing.packed_order import Packing
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import EncodedSources
from tests.support.trainer_settings import checkpointing

CAPACITY, STEPS, MICRO, ACCUMULATE = 96, 3, 2, 2
PAD = 0  # of both tokenizers, and in no document
LIMIT = 60  # conversations of a source, to save time
BATCH = MICRO * ACCUMULATE


@pytest.fixture
def packed(make_rows: Callable[..., Any]) -> Any:
    """Packed rows of three steps, from two sources of random tokens."""
    sources = [make_rows(12, seed=1), make_rows(40, seed=2)]
    prepared = EncodedSources(*sources, None, *map(index_of, sources))
    packing = Packing(CAPACITY, BATCH, STEPS * BATCH, 24)
    return sources, pack_mix(prepared, Plan(0.25, block=8), packing, seed=3)


def watch(trainer: Any) -> list[dict[str, Any]]:
    """What the model is called with in training, filled as the trainer runs."""
    calls: list[dict[str, Any]] = []
    forward = trainer.model.forward

    def record(*args: Any, **inputs: Any) -> Any:
        if trainer.model.training:
            # With a cache transformers would not look for documents in the positions.
            assert inputs.get("use_cache", trainer.model.config.use_cache) is False
            calls.append(inputs)
        return forward(*args, **inputs)

    trainer.model.forward = record
    return calls


def documents(batch: Any) -> list[list[tuple[list[int], list[int]]]]:
    """Ids and labels of each document of each row, what fills rows up left out."""
    assert "attention_mask" not in batch
    rows = []
    for ids, labels, positions in zip(
        batch["input_ids"], batch["labels"], batch["position_ids"], strict=True
    ):
        starts = [i for i, position in enumerate(positions.tolist()) if position == 0]
        row = []
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            assert positions[start:end].tolist() == list(range(end - start))
            row.append((ids[start:end].tolist(), labels[start:end].tolist()))
        if set(row[-1][0]) == {PAD}:
            assert set(row.pop()[1]) == {IGNORE_INDEX}
        rows.append(row)
    return rows


def expected(mix: Any, sources: list[Any]) -> list[list[tuple[list[int], list[int]]]]:
    """The same, taken from the sources by the numbers of the bins alone."""
    rows = [row for source in sources for row in source]
    result = []
    order, bins = mix.order.planned.order.indices(), mix.order.bins
    for number in range(len(bins)):
        members = [rows[row] for row in order[bins[number]]]
        result.append([(r["input_ids"], [IGNORE_INDEX, *r["labels"][1:]]) for r in members])
    return result


def sft_trainer(model: Path, rows: Any, tmp_path: Path, **changes: Any) -> Any:
    trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    arguments: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": MICRO,
        "gradient_accumulation_steps": ACCUMULATE,
        "max_steps": STEPS,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        **checkpointing(trl.SFTConfig, False),
        **sft_defaults(packing=True),
    }
    collator = changes.pop("data_collator", PackedCollator(tokenizer))
    return trl.SFTTrainer(
        str(model),
        trl.SFTConfig(**(arguments | changes)),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=collator,
    )


def test_trl_trains_on_the_bins_in_order(
    packed: Any, tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    sources, mix = packed
    trainer = sft_trainer(tiny_model_dir, mix.rows, tmp_path)
    calls = watch(trainer)
    trainer.train()
    seen = [row for call in calls for row in documents(call)]
    assert seen == expected(mix, sources)
    assert len(seen) == STEPS * BATCH


def test_trl_takes_them_with_its_own_collator_too(
    packed: Any, tiny_model_dir: Path, tmp_path: Path, one_thread: None
) -> None:
    torch = pytest.importorskip("torch")
    _, mix = packed
    own = sft_trainer(tiny_model_dir, mix.rows, tmp_path, data_collator=None, packing=True)
    flat = PackedCollator(own.processing_class, flatten=True)
    ours = sft_trainer(tiny_model_dir, mix.rows, tmp_path, data_collator=flat)
    pairs = zip(own.get_train_dataloader(), ours.get_train_dataloader(), strict=True)
    for theirs, batch in pairs:
        both = theirs.keys() & batch.keys()
        # TRL 1.16 adds the documents' boundaries in forms that kernels take.
        assert both >= {"input_ids", "labels", "position_ids"}
        assert all(torch.equal(*map(torch.as_tensor, (theirs[n], batch[n]))) for n in both)


def test_worker_processes_give_the_same_batches(packed: Any, small_tokenizer: Any) -> None:
    torch = pytest.importorskip("torch")
    _, mix = packed
    collator = PackedCollator(small_tokenizer, pad_to_multiple_of=8)
    batches = []
    for rows, workers in ((mix.rows, 0), (mix.rows, 2), (pickle.loads(pickle.dumps(mix.rows)), 0)):
        loader = torch.utils.data.DataLoader(
            rows, batch_size=MICRO, collate_fn=collator, num_workers=workers
        )
        batches.append([{k: v.tolist() for k, v in batch.items()} for batch in loader])
    assert batches[0] == batches[1] == batches[2]
    assert all(len(row) % 8 == 0 for batch in batches[0] for row in batch["input_ids"])


@pytest.fixture
def recipe(on_cpu: Callable[..., Path], hub_data: dict[str, Path]) -> Path:
    section: dict[str, Any] = {"chat_template": "llama-2", "holdout": 0}
    section |= {part: {"path": str(path), "limit": LIMIT} for part, path in hub_data.items()}
    return on_cpu("agentlm-7b", agenttuning=section, max_steps=STEPS, micro_batch_size=2)


def test_axolotl_trains_on_the_bins_in_order(
    recipe: Path, load: Callable[[Path], tuple[Any, Any]]
) -> None:
    from axolotl.train import setup_model_and_trainer

    cfg, data = load(recipe)
    assert cfg.sample_packing is True  # for Axolotl's patches of models
    trainer, *_ = setup_model_and_trainer(cfg, data)
    assert trainer.args.sample_packing is False
    calls = watch(trainer)
    trainer.train()

    seen = [row for call in calls for row in documents(call)]
    wanted = []
    for row in islice(data.train_dataset, STEPS * 2):
        borders = np.concatenate([[0], np.cumsum(row["seq_lengths"])])
        wanted.append(
            [
                (row["input_ids"][a:b].tolist(), row["labels"][a:b].tolist())
                for a, b in pairwise(borders)
            ]
        )
    assert seen == wanted
    assert len(data.train_dataset) == STEPS * 2
    assert trainer.state.global_step == STEPS
    report = json.loads((Path(cfg.output_dir) / "agenttuning_report.json").read_text("utf-8"))
    assert report["packing"]["packed_rows"] == STEPS * 2
    # So few rows hold the mix's first examples and no better fitting ones from further on.
    assert report["packing"]["fill"] > 0.7
    assert report["packing"]["repeats_in_row"] == {"agent": 0.0, "general": 0.0}
    assert report["loss"]["normalization"] == "tokens"
    assert 0 < report["loss"]["agent_share"] < 1


def test_axolotl_joins_the_rows_of_a_micro_batch_for_flash_attention(
    recipe: Path, load: Callable[[Path], tuple[Any, Any]]
) -> None:
    from axolotl.integrations.base import PluginManager

    cfg, data = load(recipe)
    manager = PluginManager.get_instance()
    for attention, rows in (("sdpa", 2), ("flash_attention_2", 1)):
        cfg.attn_supports_packing = attention != "sdpa"  # what Axolotl computes of it
        kind, settings = manager.get_collator_cls_and_kwargs(cfg)
        tokenizer = type("Tokenizer", (), {"pad_token_id": 0})
        batch = kind(tokenizer, **settings)(data.train_dataset.__getitems__([0, 1]))
        assert len(batch["input_ids"]) == rows
    assert manager.get_collator_cls_and_kwargs(cfg, is_eval=True) is None
