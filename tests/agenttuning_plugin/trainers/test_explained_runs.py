"""What `explain` says of a step is what the model was given in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.reports.explain import Example, explain
from agenttuning_plugin.reports.rows import open_rows
from agenttuning_plugin.training_data.built_mix import RUN_REPORT
from dataset_builders.manifest.store import read_manifest

STEPS, MICRO, ACCUMULATION = 2, 2, 2

Row = tuple[int, list[tuple[int, int]]]
"""Number of tokens, and the ranges of them that are trained."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[list[int]], list[Row]]]:
    """Ids and shape of the rows of each forward pass in training."""
    transformers = pytest.importorskip("transformers")
    found: list[tuple[list[list[int]], list[Row]]] = []
    whole = transformers.Trainer.training_step

    def step(self: Any, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        ids: list[list[int]] = []
        rows: list[Row] = []
        masks = inputs["attention_mask"]
        for tokens, labels, mask in zip(inputs["input_ids"], inputs["labels"], masks, strict=True):
            on = [False, *(labels[mask == 1] != -100).tolist(), False]
            borders = [i for i in range(len(on) - 1) if on[i] != on[i + 1]]
            ids.append(tokens[mask == 1].tolist())
            rows.append((len(ids[-1]), list(zip(borders[::2], borders[1::2], strict=True))))
        found.append((ids, rows))
        return whole(self, model, inputs, *rest, **options)

    monkeypatch.setattr(transformers.Trainer, "training_step", step)
    return found


def told(examples: list[Example]) -> list[list[Row]]:
    """Rows of each forward pass, as `explain` tells them."""
    passes: dict[int, list[Row]] = {}
    for example in examples:
        row = (example.tokens, list(example.spans))
        passes.setdefault(example.micro_batch, []).append(row)
    return [passes[number] for number in sorted(passes)]


def test_a_trl_run_is_explained(
    trl_recipe: Callable[..., Any], seen: list[tuple[list[list[int]], list[Row]]]
) -> None:
    trainer = trl_recipe(
        every=100,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=ACCUMULATION,
        save_strategy="no",
    )
    trainer.train()
    manifest = read_manifest(Path(trainer.args.output_dir))
    found = [rows for step in range(STEPS) for rows in told(explain(manifest, step))]
    assert found == [rows for _, rows in seen]
    assert len(found) == STEPS * ACCUMULATION


def test_an_axolotl_run_is_explained(
    on_cpu: Callable[..., Path],
    load: Callable[..., tuple[Any, Any]],
    seen: list[tuple[list[list[int]], list[Row]]],
) -> None:
    from axolotl.train import train

    recipe = on_cpu(
        "agentlm-7b",
        sample_packing=False,
        pad_to_sequence_len=False,
        max_steps=STEPS,
        micro_batch_size=MICRO,
        gradient_accumulation_steps=ACCUMULATION,
    )
    cfg, data = load(recipe)
    train(cfg=cfg, dataset_meta=data)
    folder = Path(cfg.output_dir)
    manifest = read_manifest(folder)
    assert manifest.batch is not None
    assert manifest.batch.size == MICRO * ACCUMULATION
    steps = [explain(manifest, step) for step in range(STEPS)]
    assert [rows for step in steps for rows in told(step)] == [rows for _, rows in seen]

    # The rows are in the cache: their text, too, is what the model read.
    stored = open_rows(manifest)
    assert stored is not None
    ids = [row for rows, _ in seen for row in rows]
    for example, read in zip([example for step in steps for example in step], ids, strict=True):
        pieces = stored.pieces(example)
        assert pieces is not None
        assert "".join(piece.text for piece in pieces) == stored.decode(read)
    report = json.loads((folder / f"{RUN_REPORT}.json").read_text("utf-8"))
    assert report["manifest"]["sha256"] == manifest.content["sha256"]
    assert (folder / f"{RUN_REPORT}.html").read_text("utf-8").startswith("<!doctype html>")
