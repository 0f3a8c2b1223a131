"""Every shipped recipe trains: two steps of a tiny model through the trainer's real path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
AGENTLM = sorted(path.stem for path in RECIPES.glob("agentlm-*.yaml"))


def documents(trainer: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and labels of each conversation in the packed rows, in the order of training."""
    for batch in trainer.get_train_dataloader():
        for ids, labels, positions in zip(
            batch["input_ids"], batch["labels"], batch["position_ids"], strict=True
        ):
            starts = [i for i, position in enumerate(positions.tolist()) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                row = tuple(ids[start:end].tolist()), tuple(labels[start:end].tolist())
                if any(label >= 0 for label in row[1]):  # what is left is padding
                    yield row


def rows(dataset: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and labels of each conversation of a dataset, packed or not."""
    found = []
    for row in dataset:
        end = 0
        for length in row.get("seq_lengths") or [len(row["input_ids"])]:
            start, end = end, end + length
            found.append(tuple(tuple(map(int, row[n][start:end])) for n in ("input_ids", "labels")))
    return found


def figures(trainer: Any, name: str) -> dict[int, float]:
    """Values of a figure in the log, by step."""
    return {entry["step"]: entry[name] for entry in trainer.state.log_history if name in entry}


@pytest.mark.parametrize("name", AGENTLM)
def test_recipe_trains(
    name: str, on_cpu: Callable[..., Path], load: Callable[..., tuple[Any, Any]]
) -> None:
    from axolotl.train import train

    recipe = on_cpu(name)
    cfg, data = load(recipe)
    _, _, trainer = train(cfg=cfg, dataset_meta=data)

    assert trainer.state.global_step == 2
    assert sorted(figures(trainer, "loss")) == [1, 2]
    assert all(math.isfinite(loss) for loss in figures(trainer, "loss").values())
    weights = "adapter_model" if "qlora" in name else "model"
    assert (Path(cfg.output_dir) / f"{weights}.safetensors").is_file()
    assert (Path(cfg.output_dir) / f"checkpoint-2/{weights}.safetensors").is_file()

    listed = yaml.safe_load(recipe.read_text())["agenttuning"]["evaluators"]
    figure_of = {
        "agent_task": "eval_database_success",
        "general_loss": "eval_general_loss",
        "replay": "eval_replay_action_match",
    }
    for figure in (figure_of[evaluator["type"]] for evaluator in listed):
        assert sorted(figures(trainer, figure)) == [0, 2], figure
    if "qlora" in name:
        assert any(type(m).__name__ == "Linear4bit" for m in trainer.model.modules())

    # The first packed row, whole conversations of the mix with the mix's labels.
    mix = set(rows(data.train_dataset))
    first = next(documents(trainer))
    assert first in mix
    assert trainer.processing_class.pad_token == "<unk>"
    assert len(trainer.processing_class) == trainer.model.get_input_embeddings().num_embeddings


def test_an_adapter_begins_with_the_seeds_weights(
    on_cpu: Callable[..., Path], load: Callable[..., tuple[Any, Any]]
) -> None:
    import torch
    from axolotl.train import setup_model_and_tokenizer

    def begin(seed: int | None, before: int) -> dict[str, Any]:
        torch.manual_seed(before)  # what another process would have come to
        cfg, _ = load(on_cpu("agentlm-7b-qlora", seed=seed))
        model = setup_model_and_tokenizer(cfg)[0]
        return {n: w.detach().clone() for n, w in model.named_parameters() if "lora_A" in n}

    first, again, default, other = begin(42, 1), begin(42, 2), begin(None, 3), begin(7, 1)
    assert first
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(torch.equal(first[name], default[name]) for name in first)  # the trainer's, too
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_packed_rows_hold_the_mix_window_by_window(
    on_cpu: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]]
) -> None:
    window = 16
    _, unpacked = load(on_cpu("agentlm-7b", sample_packing=False, micro_batch_size=64))
    places: dict[Any, list[int]] = {}
    for place, row in enumerate(rows(unpacked.train_dataset)):
        places.setdefault(row, []).append(place)

    recipe = on_cpu("agentlm-7b", max_steps=20, sample_packing_group_size=window)
    packed = rows(load(recipe)[1].train_dataset)
    seen = [places[row].pop(0) // window for row in packed]  # KeyError: a row not of the mix

    newest = 0
    for number in seen:
        assert number >= newest - 1
        newest = max(newest, number)
    full = (newest - 1) * window  # what came before has left
    assert all(place >= full for rest in places.values() for place in rest)


def test_trl_recipe_trains(trl_recipe: Callable[..., Any]) -> None:
    trainer = trl_recipe()
    mix = rows(trainer.train_dataset)
    batches = list(trainer.get_train_dataloader())
    trainer.train()
    trainer.save_model()

    assert trainer.state.global_step == 2
    assert all(math.isfinite(loss) for loss in figures(trainer, "loss").values())
    assert sorted(figures(trainer, "loss")) == [1, 2]
    for figure in ("eval_database_success", "eval_general_loss"):
        assert sorted(figures(trainer, figure)) == [0, 2], figure
    assert (Path(trainer.args.output_dir) / "adapter_model.safetensors").is_file()
    assert any(type(m).__name__ == "Linear4bit" for m in trainer.model.modules())
    delivered = [
        (tuple(ids[mask.bool()].tolist()), tuple(labels[mask.bool()].tolist()))
        for batch in batches
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        )
    ]
    assert delivered == mix


def test_bf16_trains_on_a_machine_without_a_gpu(
    on_cpu: Callable[..., Path], load: Callable[..., tuple[Any, Any]]
) -> None:
    """transformers refuses bf16 on a CPU unless `use_cpu` is set, for which Axolotl has no key."""
    import torch
    from axolotl.train import train

    if torch.accelerator.is_available():
        pytest.skip("an accelerator is available")
    cfg, data = load(on_cpu("agentlm-7b", bf16=True))
    _, _, trainer = train(cfg=cfg, dataset_meta=data)
    assert trainer.args.bf16
    assert torch.bfloat16 in {weight.dtype for weight in trainer.model.parameters()}
    losses = figures(trainer, "loss")
    assert sorted(losses) == [1, 2]
    assert all(0 < loss < math.inf for loss in losses.values())
