"""Packing is taken where packed and single documents come out the same, and refused elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from agenttuning_plugin.training_data.collator import PackedCollator, carries_state  # noqa: E402
from agenttuning_plugin.training_data.packing_check import PackingCheck, check_packing  # noqa: E402
from dataset_builders.errors import ConfigError  # noqa: E402
from tests.support.packed_models import ALL, OTHERS, PLAIN, STATEFUL, tiny  # noqa: E402

LENGTHS = (7, 1, 12, 20)


def difference(model: Any) -> float | None:
    """Largest distance of a document's logits, packed, from its logits alone; None if refused."""
    draw = np.random.default_rng(5)
    documents = [draw.integers(1, 97, length) for length in LENGTHS]
    ids = np.concatenate(documents)
    batch = PackedCollator.for_model(model)(
        [{"input_ids": ids, "labels": ids, "seq_lengths": list(LENGTHS)}]
    )
    del batch["labels"]
    with torch.no_grad():
        try:
            packed = model(**batch, use_cache=False).logits[0]
        except ValueError:  # Newer versions refuse by themselves without the kernels.
            return None
        alone = [model(input_ids=torch.tensor(d)[None], use_cache=False).logits for d in documents]
    return float((packed - torch.cat(alone, dim=1)[0]).abs().max())


@pytest.mark.parametrize("name", ALL)
def test_packing_is_taken_only_where_documents_come_out_as_alone(
    name: str, one_thread: None
) -> None:
    model = tiny(name)
    found = difference(model)
    if found is not None and found < 1e-4:
        check_packing(model)
        return
    assert name in STATEFUL or name in OTHERS, f"{name} is off by {found}"
    with pytest.raises(ConfigError) as error:
        check_packing(model)
    message = str(error.value)
    assert message.startswith("sample_packing: ")
    assert "\n" not in message
    assert type(model).__name__ in message


@pytest.mark.parametrize("name", [*PLAIN, *STATEFUL])
def test_states_are_seen_in_the_configuration(name: str) -> None:
    assert carries_state(tiny(name).config) is (name in STATEFUL)


def test_joined_rows_carry_the_boundaries_that_trl_gives(small_tokenizer: Any) -> None:
    rows = [
        {"input_ids": np.arange(1, 8), "labels": np.arange(1, 8), "seq_lengths": [3, 4]},
        {"input_ids": np.arange(1, 6), "labels": np.arange(1, 6), "seq_lengths": [5]},
    ]
    collator = PackedCollator.for_model(tiny("Lfm2"), small_tokenizer)
    batch = collator(rows)
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == [0, 3, 7, 12]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert (batch["max_length_q"], batch["max_length_k"]) == (5, 5)
    assert batch["seq_idx"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]]
    trl = pytest.importorskip("trl.trainer.sft_trainer", reason="no TRL")
    theirs = trl.DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(
        [{**row, "labels": row["labels"].tolist()} for row in rows]
    )
    for key in set(theirs) - {"labels"}:
        assert torch.equal(torch.as_tensor(batch[key]), torch.as_tensor(theirs[key])), key
    filled = PackedCollator(small_tokenizer, True, 8, boundaries=collator.boundaries)(rows)
    assert filled["cu_seq_lens_q"].tolist() == [0, 3, 7, 12, 16]
    assert filled["input_ids"].shape == filled["seq_idx"].shape == (1, 16)
    # Rows that are left apart, for sdpa and eager, have none.
    assert set(PackedCollator.for_model(tiny("Llama"), small_tokenizer)(rows)) == {
        "input_ids",
        "labels",
        "position_ids",
    }


def test_training_on_rows_that_leak_ends_before_the_first_step(
    small_tokenizer: Any, tmp_path: Any, one_thread: None
) -> None:
    datasets = pytest.importorskip("datasets")
    row = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8], "seq_lengths": [2, 2]}
    model = tiny("Mamba")
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path), use_cpu=True, max_steps=1, report_to="none", remove_unused_columns=False
        ),
        train_dataset=datasets.Dataset.from_list([row] * 8),
        data_collator=PackedCollator.for_model(model, small_tokenizer),
        callbacks=[PackingCheck()],
    )
    with pytest.raises(ConfigError, match="MambaForCausalLM"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a build of torch without CUDA")
def test_kernels_that_need_a_gpu_are_named_with_the_keys_that_turn_them_off() -> None:
    model = tiny("Llama")
    model.register_forward_pre_hook(lambda *_: torch.zeros(1, device="cuda") and None)
    with pytest.raises(ConfigError, match=r"lora_mlp_kernel.* to false"):
        check_packing(model)
