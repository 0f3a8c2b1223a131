"""Axolotl and TRL train on the same ids, with the same labels, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

STEPS, BATCH = 8, 4


def delivered(trainer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Ids and labels of each row that the train dataloader gives, without padding."""
    for batch in trainer.get_train_dataloader():
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        ):
            assert (labels[mask == 0] == -100).all()
            yield ids[mask == 1].tolist(), labels[mask == 1].tolist()


def test_axolotl_and_trl_train_on_the_same_rows(
    trl_recipe: Callable[..., Any],
    on_cpu: Callable[..., Path],
    load: Callable[..., tuple[Any, Any]],
) -> None:
    from axolotl.train import setup_model_and_trainer

    trl = list(delivered(trl_recipe(max_steps=STEPS, gradient_accumulation_steps=BATCH // 2)))

    recipe = on_cpu(
        "agentlm-7b-qlora",
        sample_packing=False,
        max_steps=STEPS,
        micro_batch_size=2,
        gradient_accumulation_steps=BATCH // 2,
    )
    trainer, *_ = setup_model_and_trainer(*load(recipe))
    axolotl = list(islice(delivered(trainer), STEPS * BATCH))

    assert len(trl) == STEPS * BATCH
    assert axolotl == trl
    assert all(any(label >= 0 for label in labels) for _, labels in trl)
