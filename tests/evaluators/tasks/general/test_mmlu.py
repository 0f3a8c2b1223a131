"""MMLU: every layout of the data, the letters' tokens, the rule of 2,048 tokens."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from evaluators.evaluator import EvalTarget
from evaluators.models.interface import Values
from evaluators.runner import run_evaluator
from evaluators.tasks.general.few_shot import takes_system
from evaluators.tasks.general.mmlu import MmluEvaluator, make
from evaluators.tasks.registry import SuiteSettings

Rows = list[dict[str, Any]]


def rows(split: str, number: int) -> Rows:
    return [
        {
            "subject": subject,
            "question": f"{split} {n}: which is letter {n % 4}, of {subject}?",
            "choices": [f"not {letter}, said twice" for letter in "ABCD"],
            "answer": "ABCD"[n % 4],
        }
        for subject in ("tea_pots", "umbrellas")
        for n in range(number)
    ]


def write_csv(folder: Path, split: str, number: int) -> None:
    (folder / split).mkdir()
    for subject in ("tea_pots", "umbrellas"):
        with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
            for row in rows(split, number):
                if row["subject"] == subject:
                    csv.writer(file).writerow([row["question"], *row["choices"], row["answer"]])


def archive(folder: Path) -> None:
    write_csv(folder, "dev", 5)
    write_csv(folder, "test", 6)


def mixed(folder: Path) -> None:
    write_csv(folder, "dev", 5)
    lines = [json.dumps(row) for row in rows("test", 6)]
    (folder / "test_some.jsonl").write_text("\n".join(lines))


def hub(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "all").mkdir()
    for split, number in (("dev", 5), ("test", 6)):
        found = [row | {"answer": "ABCD".index(row["answer"])} for row in rows(split, number)]
        file = folder / "all" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(found), file)


def made(folder: Path, **options: object) -> MmluEvaluator:
    evaluator = make("mmlu", SuiteSettings(options={"mmlu": {"data": str(folder), **options}}))
    assert isinstance(evaluator, MmluEvaluator)
    return evaluator


@pytest.mark.parametrize("layout", [archive, mixed, hub])
def test_every_layout_gives_the_same_prompts(
    layout: Callable[[Path], None], tmp_path: Path
) -> None:
    layout(tmp_path)
    evaluator = made(tmp_path)
    assert sorted(evaluator.items()) == [
        f"{subject}/{n}" for subject in ("tea_pots", "umbrellas") for n in range(6)
    ]
    dialogue = evaluator.prompt("umbrellas/3").dialogue(5)
    assert [m.role for m in dialogue] == ["system", *["user", "assistant"] * 5, "user"]
    assert [m.content for m in dialogue[2::2]] == ["A", "B", "C", "D", "A"]
    assert dialogue[-1].content.splitlines() == [
        "Question: test 3: which is letter 3, of umbrellas?",
        *(f"{letter}. not {letter}, said twice" for letter in "ABCD"),
    ]
    assert evaluator.about()["data"].startswith("folder, 12 of 14,042 test questions, sha256 ")


class Parrot:
    """Knows the answer that a question names; has room for so many messages."""

    def __init__(self, room: int = 99, blind: bool = False) -> None:
        self.room, self.blind = room, blind
        self.lengths: list[int] = []

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[Values | None]:
        told: list[Values | None] = []
        for dialogue in dialogues:
            if len(dialogue) > self.room:
                told.append(None)
                continue
            self.lengths.append(len(dialogue))
            right = "ABCD"[int(dialogue[-1].content.split("letter ")[1][0])]
            chances = [0.3 if each == right else 0.2 for each in candidates]
            values = [-math.inf if self.blind else math.log(p) for p in chances]
            told.append(Values(values, prompt_tokens=9))
        return told


def test_accuracy_is_over_items_and_subjects_are_in_the_records(tmp_path: Path) -> None:
    archive(tmp_path)
    model = Parrot(room=8)  # a system message, three shots and the question
    result = run_evaluator(made(tmp_path), EvalTarget(model=None, tokenizer=None, server=model))
    assert result.metrics["accuracy"].value == 1.0
    assert result.metrics["accuracy"].n == 12
    assert {record["group"] for record in result.records} == {"tea_pots", "umbrellas"}
    assert {record["shots"] for record in result.records} == {3}
    assert set(model.lengths) == {8}
    assert result.records[0]["messages"][-1]["content"] == result.records[0]["answer"]


@pytest.mark.parametrize(
    ("model", "said"), [(Parrot(room=1), "does not fit"), (Parrot(blind=True), "none of A")]
)
def test_what_cannot_be_measured_is_an_error_and_no_wrong_answer(
    model: Parrot, said: str, tmp_path: Path
) -> None:
    archive(tmp_path)
    result = run_evaluator(made(tmp_path), EvalTarget(model=None, tokenizer=None, server=model))
    assert (result.num_errors, result.metrics) == (12, {})
    assert said in result.records[0]["error"]
    json.dumps(result.records, allow_nan=False)


def test_the_model_is_asked_at_most_2048_tokens(tmp_path: Path, tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    long = rows("dev", 5)
    for row in long:
        row["question"] += " z" * 250  # 2 tokens each with the fixture's tokenizer
    archive(tmp_path)
    for file in (tmp_path / "dev").iterdir():
        file.unlink()
    for subject in ("tea_pots", "umbrellas"):
        with (tmp_path / "dev" / f"{subject}_dev.csv").open("w", newline="") as file:
            for row in long:
                if row["subject"] == subject:
                    csv.writer(file).writerow([row["question"], *row["choices"], row["answer"]])
    subject_ = EvalTarget(
        model=transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        tokenizer=transformers.AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    evaluator = made(tmp_path)
    result = run_evaluator(evaluator, subject_, limit=4)
    assert (result.num_errors, len(result.records)) == (0, 4)
    for record in result.records:
        kept = record["shots"]
        assert 0 < kept < 5
        for shots, fits in ((kept, True), (kept + 1, False)):
            ids = subject_.tokenizer.apply_chat_template(
                [
                    {"role": m.role, "content": m.content}
                    for m in evaluator.prompt(record["item"]).dialogue(shots)
                ],
                add_generation_prompt=True,
                return_dict=True,
            )["input_ids"]
            assert (len(ids) + 1 <= 2048) is fits


def test_bad_data_is_named(tmp_path: Path) -> None:
    archive(tmp_path)
    bad = tmp_path / "test" / "tea_pots_test.csv"
    bad.write_text("What?,a,b,c,d,E\n")
    with pytest.raises(DataError, match=r"tea_pots_test.csv:1: answer: found 'E', expected A, B"):
        made(tmp_path)
    bad.write_text("What?,a,b,c,A\n")
    with pytest.raises(DataError, match=r"tea_pots_test.csv:1: found 5 columns, expected 6"):
        made(tmp_path)
    bad.unlink()
    with pytest.raises(ConfigError, match="tea_pots: found 5 answered questions, expected 9"):
        made(tmp_path, shots=9)
    with pytest.raises(ConfigError, match="option 'shot' is unknown; known: data, shots, hub"):
        made(tmp_path, shot=5)
    with pytest.raises(SourceNotFoundError, match="absent"):
        made(tmp_path / "absent")


def test_without_folder_and_hub_one_line_tells_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AGENTTUNING_DATA", raising=False)
    with pytest.raises(SourceNotFoundError) as raised:
        make("mmlu", SuiteSettings())
    said = str(raised.value)
    assert "dev/*.csv" in said
    assert "cais/mmlu cannot be loaded from the hub" in said
    assert "\n" not in said


def test_the_real_files(shared: Path) -> None:
    evaluator = make("mmlu", SuiteSettings(data=str(shared / "data")))
    assert len(evaluator.items()) == 57 * 20
    subjects = {item.split("/")[0] for item in evaluator.items()[:57]}
    assert len(subjects) > 30  # A beginning is a sample of all subjects.


def test_a_template_without_system_messages_gets_the_instruction_in_the_first_turn(
    make_tokenizer: Callable[..., Any], tmp_path: Path
) -> None:
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    plain += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    takes = [
        takes_system(EvalTarget(model=None, tokenizer=make_tokenizer(template)))
        for template in (plain, refusing + plain)
    ]
    assert takes == [True, False]
    archive(tmp_path)
    for shots in (2, 0):
        first, *rest = made(tmp_path).prompt("umbrellas/0", system=False).dialogue(shots)
        assert first.role == "user"
        assert first.content.startswith("You answer multiple-choice questions about umbrellas.")
        assert "Question: " in first.content
        assert len(rest) == 2 * shots
