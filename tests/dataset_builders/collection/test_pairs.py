"""Pairs of a solved and a failed attempt, as TRL's `DPOTrainer` takes them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.collection.pairs import OTHER_PROMPT, SAME, pair_of, write_pairs
from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import DataError

SAVED = Path(__file__).parents[2] / "assets/saved"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_pairs_of_a_collection_part_at_the_first_different_turn(
    noisy: Path, tmp_path: Path
) -> None:
    report = write_pairs([noisy], tmp_path / "pairs.jsonl")
    assert report.pairs == 3
    assert report.left_out == {
        "broken: cut_turns": 6,
        "tasks without a failed attempt": 7,
        "tasks without a solved attempt": 6,
    }
    found = rows(tmp_path / "pairs.jsonl")
    assert len({row["id"] for row in found}) == 3
    for row in found:
        assert row.keys() == {"id", "task", "prompt", "chosen", "rejected"}
        # The query is the same in both, and so is its result: they part at the answer.
        assert [each["role"] for each in row["prompt"]] == ["user", "assistant"] * 2 + ["user"]
        assert [each["role"] for each in row["chosen"] + row["rejected"]] == ["assistant"] * 2
        assert row["rejected"][0]["content"].endswith('["nothing of it"]')
        assert row["chosen"][0]["content"] != row["rejected"][0]["content"]


def test_halves_may_come_from_different_collections(noisy: Path, tmp_path: Path) -> None:
    # The saved collection has the oracle's episodes of other tasks: no pair by itself.
    with pytest.raises(DataError, match="found no pair in 3 tasks: tasks without a failed attempt"):
        write_pairs([SAVED / "collected"], tmp_path / "none.jsonl")
    both = write_pairs([SAVED / "collected", noisy], tmp_path / "pairs.jsonl")
    assert both.pairs == 3


def conversation(*turns: str, tools: str = "") -> Conversation:
    messages = [Message("user", "task")]
    for number, turn in enumerate(turns):
        role = "user" if number % 2 else "assistant"
        messages.append(Message(role, turn, role == "assistant"))  # type: ignore[arg-type]
    return Conversation.create(messages, id="t", task="db", tools=tools)


def halves(solved: Conversation, failed: Conversation, **options: bool) -> Any:
    pair = pair_of(solved, failed, **options)
    if isinstance(pair, str):
        return pair
    texts = {key: [m["content"] for m in pair[key]] for key in ("prompt", "chosen", "rejected")}
    return tuple(texts.values())


def test_where_halves_begin() -> None:
    solved = conversation("a", "1", "b", "2", "c")
    assert halves(solved, conversation("a", "1", "x", "3", "y")) == (
        ["task", "a", "1"],
        ["b", "2", "c"],
        ["x", "3", "y"],
    )
    assert halves(solved, conversation("a", "1", "x", "3", "y"), one_turn=True) == (
        ["task", "a", "1"],
        ["b"],
        ["x"],
    )
    # The world answered otherwise, or one ends earlier: the last shared turn begins both.
    assert halves(solved, conversation("a", "9", "b")) == (
        ["task"],
        ["a", "1", "b", "2", "c"],
        ["a", "9", "b"],
    )
    assert halves(solved, conversation("a", "1", "b")) == (
        ["task", "a", "1"],
        ["b", "2", "c"],
        ["b"],
    )
    assert halves(solved, conversation("a", "1", "b"), one_turn=True) == SAME
    assert halves(solved, solved) == SAME
    other = replace(solved, messages=(Message("user", "another"), *solved.messages[1:]))
    assert halves(solved, other) == OTHER_PROMPT
    assert halves(solved, replace(solved, tools="[]")) == OTHER_PROMPT


@pytest.mark.slow
def test_trl_prepares_and_trains_on_them(
    noisy: Path, tmp_path: Path, tiny_model_dir: Path, small_tokenizer: Any
) -> None:
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    from datasets import load_dataset

    write_pairs([noisy], tmp_path / "pairs.jsonl")
    data = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = copy.deepcopy(small_tokenizer)
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_length=None,
        gradient_checkpointing=False,
    )
    trainer = trl.DPOTrainer(model, args=args, train_dataset=data, processing_class=tokenizer)
    prepared = trainer.train_dataset
    for row, pair in zip(prepared, rows(tmp_path / "pairs.jsonl"), strict=True):
        whole = tokenizer.decode(row["prompt_ids"] + row["rejected_ids"])
        assert pair["rejected"][0]["content"] in whole
        assert pair["chosen"][0]["content"] in tokenizer.decode(row["chosen_ids"])
    assert trainer.train().training_loss > 0
