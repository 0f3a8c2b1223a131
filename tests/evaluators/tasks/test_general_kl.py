"""Divergence from the model before training, on a real (tiny, random) model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.errors import ConfigError
from tests.evaluators.tasks.test_evaluators import assert_same, state_of

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.general_kl import GeneralKLEvaluator  # noqa: E402
from evaluators.tasks.general_loss import GeneralLossEvaluator  # noqa: E402
from evaluators.tasks.held_out_rows import ConversationRows  # noqa: E402

TALKS = [
    Conversation.create(
        [
            Message("user", f"question {i} " + "and more " * (i % 5)),
            Message("assistant", f"answer {i}. " * (1 + i % 7), trained=True),
        ],
        id=str(i),
    )
    for i in range(11)
]


@pytest.fixture
def base(tiny_model_dir: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)


@pytest.fixture
def tokenizer(tiny_model_dir: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(tiny_model_dir)


def with_adapter(base: Any, scale: float) -> Any:
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear"))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    return model


def expected(model: Any, reference: Any, rows: Any) -> float:
    """KL(reference || model) per trained token, by torch's own function, a row at a time."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        trained = torch.tensor(row["labels"])[1:] != -100
        with torch.no_grad():
            mine = model(input_ids=ids).logits[0, :-1][trained].log_softmax(-1)
            base = reference(input_ids=ids).logits[0, :-1][trained].log_softmax(-1)
        total += float(torch.nn.functional.kl_div(mine, base, reduction="sum", log_target=True))
        count += int(trained.sum())
    return total / count


def test_an_adapter_is_compared_with_its_base_and_left_as_it_was(
    base: Any, tokenizer: Any, tiny_model_dir: Path
) -> None:
    rows = encode_dataset(TALKS, Encoder(tokenizer, max_length=4096)).dataset
    model = with_adapter(base, 0.3)
    subject = EvalTarget(model=model, tokenizer=tokenizer)
    before = state_of(subject)
    metric = run_evaluator(GeneralKLEvaluator(rows), subject).metrics["kl"]
    assert_same(before, state_of(subject))
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    assert metric.value == pytest.approx(expected(model.eval(), reference, rows), rel=1e-4)
    assert metric.n == len(TALKS)
    assert metric.value > 1e-3


def test_a_model_that_is_its_reference_has_no_divergence(base: Any, tokenizer: Any) -> None:
    subject = EvalTarget(model=with_adapter(base, 0.0), tokenizer=tokenizer)
    metric = run_evaluator(GeneralKLEvaluator(ConversationRows(TALKS)), subject).metrics["kl"]
    assert abs(metric.value) < 1e-6


def test_a_fully_trained_model_needs_its_reference(
    base: Any, tokenizer: Any, tiny_model_dir: Path
) -> None:
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    with torch.no_grad():
        base.lm_head.weight.mul_(1.5)
    subject = EvalTarget(model=base, tokenizer=tokenizer)
    talks = ConversationRows(TALKS)
    with pytest.raises(ConfigError, match="reference: found none"):
        run_evaluator(GeneralKLEvaluator(talks), subject)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        run_evaluator(GeneralKLEvaluator(talks, reference="/no/such"), subject)
    evaluator = GeneralKLEvaluator(talks, reference=str(tiny_model_dir))
    rows = encode_dataset(TALKS, Encoder(tokenizer, max_length=4096)).dataset
    found = run_evaluator(evaluator, subject).metrics["kl"].value
    assert found == pytest.approx(expected(base.eval(), reference, rows), rel=1e-4)


def test_conversations_have_the_loss_of_their_rows(base: Any, tokenizer: Any) -> None:
    """The loss of a file's conversations is that of rows encoded beforehand."""
    subject = EvalTarget(model=base, tokenizer=tokenizer)
    rows = encode_dataset(TALKS, Encoder(tokenizer, max_length=4096)).dataset
    encoded = run_evaluator(GeneralLossEvaluator(rows), subject).metrics["loss"]
    file = run_evaluator(GeneralLossEvaluator(ConversationRows(TALKS)), subject).metrics["loss"]
    assert file.value == pytest.approx(encoded.value, rel=1e-6)
    assert file.stderr == pytest.approx(encoded.stderr, rel=1e-6)


def test_a_long_conversation_is_one_item_of_several_rows(base: Any, tokenizer: Any) -> None:
    turns = [m for talk in TALKS for m in talk.messages]
    rows = ConversationRows([Conversation.create(turns)], max_length=64)
    subject = EvalTarget(model=base, tokenizer=tokenizer)
    assert len(rows.rows(subject, rows.items())["conversation-00000"]) > 1
    (record,) = run_evaluator(GeneralLossEvaluator(rows), subject).records
    assert record["weight"] == sum(
        label != -100
        for _, labels in rows.rows(subject, rows.items())["conversation-00000"]
        for label in labels[1:]
    )
    short = ConversationRows(TALKS, limit=3)
    assert len(short.items()) == 3
    assert set(short.items()) < set(ConversationRows(TALKS).items())
    with pytest.raises(ConfigError, match="trained turn"):
        ConversationRows([Conversation.create([Message("user", "x")])])
