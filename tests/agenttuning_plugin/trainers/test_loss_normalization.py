"""One recipe, one objective: the gradient of a step is the same on every trainer and cut."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[trl]'")
transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

from agenttuning_plugin.training_data.collator import PackedCollator  # noqa: E402
from agenttuning_plugin.training_data.loss_normalization import (  # noqa: E402
    LossNormalization,
    divides_by_count,
)
from dataset_builders.errors import ConfigError  # noqa: E402
from tests.support.packed_models import tiny  # noqa: E402

LENGTHS = ((4, 1), (30, 25), (9, 2), (16, 15))  # tokens and trained tokens of a batch's examples
CUTS = [(4, 1), (1, 4), (2, 2)]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")  # Axolotl imports that part of TRL


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny("Llama")


def rows() -> Any:
    draw = torch.Generator().manual_seed(1)
    made = []
    for length, trained in LENGTHS:
        ids = torch.randint(1, 97, (length,), generator=draw).tolist()
        labels = [-100] * (length - trained) + ids[length - trained :]
        made.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * length})
    return datasets.Dataset.from_list(made)


def packed() -> Any:
    """The same examples, two in each row: first labels are no targets, nor trained here."""
    plain = rows()
    return datasets.Dataset.from_list(
        [
            {
                "input_ids": plain[a]["input_ids"] + plain[b]["input_ids"],
                "labels": plain[a]["labels"] + plain[b]["labels"],
                "seq_lengths": [LENGTHS[a][0], LENGTHS[b][0]],
            }
            for a, b in ((0, 1), (2, 3))
        ]
    )


class Recorder(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Keeps the gradient of the first step."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.found = {n: p.grad.clone() for n, p in rest["model"].named_parameters()}


def trainer_of(kind: str, model: Any, data: Any, tokenizer: Any, out: Path, **more: Any) -> Any:
    arguments = {
        "output_dir": str(out),
        "max_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        **more,
    }
    collate: Any = PackedCollator(tokenizer)
    if "seq_lengths" not in data.column_names:
        collate = transformers.DataCollatorForTokenClassification(tokenizer)
    common = {"train_dataset": data, "processing_class": tokenizer, "data_collator": collate}
    if kind == "trl":
        trl = pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")
        arguments |= {
            "train_sampling_strategy": "sequential",
            "max_length": None,
            "dataset_kwargs": {"skip_prepare_dataset": True},
        }
        if hasattr(transformers.TrainingArguments, "activation_checkpointing"):
            arguments["activation_checkpointing"] = False  # TRL gives the old name, which warns.
        return trl.SFTTrainer(model, trl.SFTConfig(**arguments), **common)
    if kind == "axolotl":
        pytest.importorskip("axolotl", reason="pip install 'agenttuning-plugin[axolotl]'")
        from axolotl.core.trainers.base import AxolotlTrainer
        from axolotl.core.training_args import AxolotlTrainingArguments

        # As Axolotl's builder makes them.
        arguments |= {"curriculum_sampling": True, "average_tokens_across_devices": False}
        return AxolotlTrainer(model=model, args=AxolotlTrainingArguments(**arguments), **common)
    arguments["train_sampling_strategy"] = "sequential"
    return transformers.Trainer(model, transformers.TrainingArguments(**arguments), **common)


def gradient(
    kind: str, cut: tuple[int, int], rule: Any, model: Any, data: Any, tokenizer: Any, out: Path
) -> dict[str, Any]:
    trainer = trainer_of(
        kind,
        copy.deepcopy(model),
        data,
        tokenizer,
        out,
        per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
    )
    LossNormalization.install(trainer, rule)
    recorder = Recorder()
    trainer.add_callback(recorder)
    trainer.train()
    return recorder.found


def expected(model: Any, rule: str) -> dict[str, Any]:
    """By the definition, one example after the other."""
    model = copy.deepcopy(model).train()
    total = sum(trained for _, trained in LENGTHS)
    for row, (_, trained) in zip(rows(), LENGTHS, strict=True):
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        (loss / (total if rule == "tokens" else trained * len(LENGTHS))).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(torch.allclose(found[n], wanted[n], rtol=1e-3, atol=1e-6) for n in wanted)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["transformers", "trl", "axolotl"])
def test_a_step_is_divided_by_the_tokens_of_the_global_batch(
    kind: str, cut: tuple[int, int], model: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    found = gradient(kind, cut, "tokens", model, rows(), small_tokenizer, tmp_path)
    assert same(found, expected(model, "tokens"))


@pytest.mark.parametrize("cut", [(2, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["transformers", "trl", "axolotl"])
def test_so_is_one_of_packed_rows(
    kind: str, cut: tuple[int, int], model: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    found = gradient(kind, cut, "tokens", model, packed(), small_tokenizer, tmp_path)
    assert same(found, expected(model, "tokens"))


@pytest.mark.parametrize("kind", ["transformers", "trl", "axolotl"])
def test_by_examples_each_example_weighs_the_same(
    kind: str, model: Any, small_tokenizer: Any, tmp_path: Path
) -> None:
    found = gradient(kind, (1, 4), "examples", model, rows(), small_tokenizer, tmp_path)
    assert same(found, expected(model, "examples"))
    assert not same(found, expected(model, "tokens"))
    for data, size, words in ((rows(), 2, "micro-batches of 2"), (packed(), 1, "packed rows")):
        more = {"per_device_train_batch_size": size}
        # TRL replaces the forward of a model that it is given.
        trainer = trainer_of(kind, copy.deepcopy(model), data, small_tokenizer, tmp_path, **more)
        with pytest.raises(ConfigError, match=f"examples: found {words}"):
            LossNormalization(trainer, "examples")


class Deaf(transformers.LlamaForCausalLM):  # type: ignore[misc, name-defined]
    """Averages over its micro-batch, whatever it is told."""

    def forward(self, *args: Any, num_items_in_batch: Any = None, **rest: Any) -> Any:
        return super().forward(*args, **rest)


def test_a_loss_that_cannot_be_divided_is_refused_where_it_matters(
    small_tokenizer: Any, tmp_path: Path, model: Any
) -> None:
    deaf = Deaf(model.config)
    assert divides_by_count(model)
    assert not divides_by_count(deaf)
    with pytest.raises(ConfigError, match="the loss of Deaf takes no num_items_in_batch"):
        gradient("transformers", (2, 2), "tokens", deaf, rows(), small_tokenizer, tmp_path)
    found = gradient("transformers", (4, 1), "tokens", deaf, rows(), small_tokenizer, tmp_path)
    assert same(found, expected(deaf, "tokens"))
    with pytest.raises(ConfigError, match="loss_normalization: found 'sum', expected one of"):
        LossNormalization(
            trainer_of("transformers", deaf, rows(), small_tokenizer, tmp_path),
            "sum",  # type: ignore[arg-type]
        )
