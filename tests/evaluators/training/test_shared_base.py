"""Runs that start from the same model measure step 0 once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from evaluators.evaluator import EvalResult, EvalTarget, Evaluator, Metric, Record  # noqa: E402
from evaluators.models.fingerprint import fingerprint, start_fingerprint  # noqa: E402
from evaluators.results.evaluations import read_evaluations, transcript_path  # noqa: E402
from evaluators.results.transcripts import Journal  # noqa: E402
from evaluators.training.callback import (  # noqa: E402
    EvaluationPolicy,
    EvaluatorCallback,
    Schedule,
)
from evaluators.training.shared_base import SharedBase, measure_once, shared_base  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:'pin_memory' argument is set as true:UserWarning"  # torch, without accelerator
)


def adapted(
    base: Path, seed: int, rank: int = 4, *, trained: bool = False, extra: tuple[str, ...] = ()
) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=rank, target_modules=["q_proj", *extra], init_lora_weights=not trained
        )
        return peft.get_peft_model(model, config)


class Logits(Evaluator):
    """Measures the model itself, and counts what it measures."""

    suite = "own"
    primary = "logit"
    name = "logits"

    def __init__(self, *broken: str) -> None:
        self.measured: list[list[str]] = []
        self.broken = broken

    def items(self) -> tuple[str, ...]:
        return ("3", "5", "8")

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        self.measured.append(list(items))
        for item in items:
            with torch.no_grad():
                logit = float(subject.model(torch.tensor([[int(item), 1]])).logits[0, -1].max())
            error = "broken" if item in self.broken else ""
            finished({"item": item, "scores": {} if error else {"logit": logit}, "error": error})


@pytest.fixture
def run(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., tuple[list[list[str]], Any]]:
    """Trains a step with an adapter of its own; returns what was measured, and the records."""

    def train(
        name: str, seed: int, settings: str = "a", evaluator: Logits | None = None, **adapter: Any
    ) -> tuple[list[list[str]], Any]:
        measuring = evaluator or Logits()
        trainer = transformers.Trainer(
            adapted(tiny_model_dir, seed, **adapter),
            transformers.TrainingArguments(
                output_dir=str(tmp_path / name),
                max_steps=1,
                per_device_train_batch_size=1,
                learning_rate=0.1,
                save_strategy="no",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": [7, 8, 9], "labels": [7, 8, 9]}],
            processing_class=transformers.AutoTokenizer.from_pretrained(tiny_model_dir),
        )
        policy = EvaluationPolicy(shared_base=str(tmp_path / "base"))
        EvaluatorCallback.install(trainer, [Schedule(measuring, settings=settings)], policy=policy)
        trainer.train()
        rows = read_evaluations(tmp_path / name)
        assert [row["step"] for row in rows] == [0, 1]
        return measuring.measured, [row["records"] for row in rows]

    return train


EMBEDDING = ("embed_tokens",)
"""Its first matrix is the one that is zero."""

ALL = ["3", "5", "8"]


def test_a_second_run_copies_step_0_and_measures_only_the_end(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    measured, first = run("a", seed=1)
    assert measured == [ALL, ALL]
    again, second = run("b", seed=2, rank=8)
    assert again == [[], ALL]
    assert second[0] == first[0]
    assert second[1] != first[1]
    (base,) = read_evaluations(tmp_path / "base")
    assert base["step"] == 0
    assert base["records"] == first[0]
    transcript = transcript_path(tmp_path / "b", "logits", 0).read_text("utf-8").splitlines()
    assert [json.loads(line)["item"] for line in transcript[1:]] == ALL
    # What is copied is what the run would have measured.
    assert run("c", seed=2, settings="other", rank=8)[1][0] == first[0]


@pytest.mark.parametrize("other", [{"settings": "b"}, {"settings": ""}, {"trained": True}])
def test_another_model_or_evaluator_is_measured(run: Callable[..., Any], other: Any) -> None:
    run("a", seed=1)
    assert run("b", seed=1, **other)[0] == [ALL, ALL]


def test_a_result_with_errors_is_not_shared(run: Callable[..., Any]) -> None:
    run("a", seed=1, evaluator=Logits("5"))
    assert run("b", seed=1)[0] == [ALL, ALL]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")
def test_only_matrices_that_add_zero_are_left_out(tiny_model_dir: Path) -> None:
    first, second = (adapted(tiny_model_dir, seed, extra=EMBEDDING) for seed in (1, 2))
    assert fingerprint(first) != fingerprint(second)
    assert start_fingerprint(first) == start_fingerprint(second)
    changes: list[str] = ["lora_B.default.weight", "base_layer.weight"]
    for suffix in changes:
        changed = adapted(tiny_model_dir, 2, extra=EMBEDDING)
        for name, parameter in changed.named_parameters():
            if name.endswith(suffix):
                parameter.data[0] += 1
                break
        assert start_fingerprint(changed) != start_fingerprint(first), suffix


def test_runs_that_begin_together_measure_once(tmp_path: Path) -> None:
    measuring, counted = threading.Event(), []
    subject, heading = EvalTarget(model=None, tokenizer=None), {"evaluator": "logits"}

    def measure(journal: Path) -> EvalResult:
        measuring.set()
        with closing(Journal(journal, heading)) as opened:
            if not opened.finished:
                time.sleep(0.3)  # Time for the other run to come here, were it not to wait.
                counted.append(journal.parent.name)
                opened.add({"item": "3", "scores": {"logit": 1.0}, "error": ""})
        metrics = {"logit": Metric(1.0, 0.0, 1.0, 1.0, 1)}
        return EvalResult("logits", metrics, 0, 0.1, ({"item": "3"},), suite="own", primary="logit")

    def run(name: str) -> None:
        shared = SharedBase(tmp_path / "base", "logits", {"weights": "1"})
        journal = tmp_path / name / "logits.jsonl"
        measure_once(shared, journal, heading, subject, lambda: measure(journal))

    first, second = (threading.Thread(target=run, args=(name,)) for name in "ab")
    first.start()
    assert measuring.wait(10)
    second.start()
    first.join()
    second.join()
    assert counted == ["a"]
    assert (tmp_path / "b/logits.jsonl").read_text() == (tmp_path / "a/logits.jsonl").read_text()
    assert len(read_evaluations(tmp_path / "base")) == 1


def test_another_architecture_with_the_same_weights_is_another_base(tiny_model_dir: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)

    def path(**config: Any) -> Path:
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir, **config)
        subject = EvalTarget(model, tokenizer)
        shared = shared_base("base", "a", Logits(), None, subject)
        assert shared is not None
        return shared.path

    assert path() == path()
    assert path() != path(rms_norm_eps=0.1)
