"""GSM8K: both rules on tricky answers, shots as chat turns, data in each layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.errors import DataError, SourceNotFoundError
from evaluators.evaluator import EvalTarget
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.general.answer_numbers import last_number
from evaluators.tasks.general.gsm8k import gold_answer, last_integer, make
from evaluators.tasks.registry import SuiteSettings


@pytest.mark.parametrize(
    ("text", "integer", "number"),
    [
        ("The answer is 42.", 42, "42"),
        ("so it is $20,800", 800, "20800"),
        ("He pays $3.50.", 50, "3.50"),
        ("It costs 12.05 dollars", None, "12.05"),  # "05": Python reads no leading zero
        ("The temperature is -7", 7, "-7"),
        ("-$1,234.5 in all", 5, "-1234.5"),
        ("$-3", 3, "-3"),
        ("8-3", 3, "3"),  # what is taken away is no negative number
        ("(8)-3", 3, "3"),
        ("1,000,000 people", 0, "1000000"),
        ("2, 3, 5", 5, "5"),
        ("50% of 1,2", 2, "1.2"),
        ("so 20 800 in all", 800, "20800"),
        ("so 1 234 567,5 kg", 5, "1234567.5"),
        ("so 20\u202f800", 800, "20800"),
        ("so 20'800 francs", 800, "20800"),
        ("in 2019 300 people", 300, "300"),
        ("5 of 12 20 300", 300, "300"),  # a list
        ("3,5", 5, "3.5"),
        ("it is 0,125 l", 125, "0.125"),
        ("he has 3,500", 500, "3500"),
        ("1,2,3", 3, "3"),
        ("12,50 euros", 50, "12.50"),
        ("1.234,56", 56, "1234.56"),
        ("1.234.567", 567, "1234567"),
        ("20.800", 800, "20.800"),
        ("so 1/2", 2, "0.5"),
        ("so 2 1/2 cups", 2, "2.5"),
        ("-1/4", 4, "-0.25"),
        ("so \\frac{3}{4}", 4, "0.75"),
        ("1/0", 0, "0"),
        ("on 3/4/2020", 2020, "2020"),
        ("12/4 = 3", 3, "3"),
        ("2.08e4", 4, "20800"),
        ("1.5E+3 m", 3, "1500"),
        ("2.08 x 10^4", 4, "20800"),
        ("2.08 \\times 10^{4}", 4, "20800"),
        ("5 x 10 = 50", 50, "50"),
        ("it is \u20137", 7, "-7"),
        ("5\u20137", 7, "7"),
        ("pages 5\u20137", 7, "7"),
        ("#### 18", 18, "18"),
        ("#### 18\nIt took 3 steps.", 3, "18"),
        ("#### $1,018 for 2 days", 2, "1018"),
        ("#### none\nor 3", 3, "3"),
        ("so \\boxed{18} in 2 steps", 2, "18"),
        ("so \\boxed{\\frac{1}{2}}", 2, "0.5"),
        ("9e999", 999, "9e999"),
        ("That is .5 of it", 5, ".5"),
        ("ends in 0", 0, "0"),
        ("minus sign \u22124", 4, "-4"),
        ("no number here", None, None),
        ("٣ apples", None, None),
        ("", None, None),
    ],
)
def test_the_two_rules(text: str, integer: int | None, number: str | None) -> None:
    assert last_integer(text) == integer
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9)))
def test_a_written_number_is_read_back(value: Decimal) -> None:
    assert last_number(f"7 of them: the answer is {value:,}.") == value
    assert last_number(f"the answer is ${value:f}") == value


def test_a_very_long_number_is_wrong_and_no_crash() -> None:
    assert last_integer("9" * 10_000) is None
    assert last_number("9" * 10_000) == Decimal("9" * 10_000)


class Solver:
    """Answers through the `LanguageModel` interface; some prompts are too long for it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[Sequence[Message]] = []

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        assert decoding == Decoding(512, stop=("Question:",))
        self.asked += dialogues
        answers: list[str | None] = []
        for dialogue in dialogues:
            apples = dialogue[-1].content.split()[3]
            solved = f"So {apples} + 1.\nThe answer is 1,{int(apples):03}.Question: 3 and 4?"
            answers.append(solved if len(dialogue) <= self.room else None)
        return answers


def folder(tmp_path: Path, questions: int = 3) -> Path:
    rows = [
        {"question": f"There are {n} apples?", "answer": f"<<1+1=2>>x\n#### 1,{n:03}"}
        for n in range(questions)
    ]
    for split in ("train_all", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    return tmp_path


def settings(data: Path, **options: object) -> SuiteSettings:
    return SuiteSettings(options={"gsm8k": {"data": str(data), **options}})


def test_items_are_measured_with_shots_that_fit(tmp_path: Path) -> None:
    evaluator = make("gsm8k", settings(folder(tmp_path), shots=3))
    solver = Solver(room=6)  # a system message, two of the three shots and the question
    result = run_evaluator(evaluator, EvalTarget(model=None, tokenizer=None, server=solver))
    assert result.metrics["accuracy_corrected"].value == 1.0
    # The paper's rule loses what stands before the comma.
    assert result.metrics["accuracy"].value == 0.0
    assert [record["shots"] for record in result.records] == [2, 2, 2]
    system, asked, answered = solver.asked[0][:3]
    assert (system.role, asked.role, answered.role) == ("system", "user", "assistant")
    assert answered.content == "x\nThe answer is 1000."
    assert result.about["data"].startswith("folder, 3 of 1,319 test questions")


def test_no_room_even_without_shots_is_an_error(tmp_path: Path) -> None:
    evaluator = make("gsm8k", settings(folder(tmp_path), shots=1))
    result = run_evaluator(evaluator, EvalTarget(model=None, tokenizer=None, server=Solver(room=1)))
    assert result.num_errors == 3
    assert "do not fit the context" in result.error


def test_bad_data_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "test.jsonl").write_text('{"question": "?", "answer": 3}\n')
    with pytest.raises(DataError, match=r"test.jsonl:1: answer: found int, expected str"):
        make("gsm8k", settings(place))
    with pytest.raises(DataError, match="found 3 worked examples, expected 8"):
        make("gsm8k", settings(folder(tmp_path)))
    with pytest.raises(DataError, match="no number after ####"):
        gold_answer("7")
    with pytest.raises(SourceNotFoundError, match=r"test\*.jsonl.* in .*absent"):
        make("gsm8k", settings(tmp_path / "absent"))


def test_the_real_files(shared: Path) -> None:
    evaluator = make("gsm8k", SuiteSettings(data=str(shared / "data")))
    assert len(evaluator.items()) == 1000
    assert "1,000 of 1,319" in evaluator.about()["data"]
    lines = (shared / "data/gsm8k/test_first1000.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    # The reference solutions, read as answers, are right by the corrected rule.
    ends = [(row["answer"].replace("####", "The answer is"), row["answer"]) for row in rows]
    assert all(last_number(said) == gold_answer(gold) for said, gold in ends)
