"""MT-Bench: a real server judges by a rule; prompts, turns and ratings as FastChat's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from evaluators.evaluator import EvalTarget
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.general.mt_bench import TEMPERATURES, make, read_rating
from evaluators.tasks.registry import SuiteSettings
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

CATEGORIES = tuple(TEMPERATURES)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two questions of each category, sorted by it; own prompts of the judge."""
    questions = [
        {"question_id": 10 * n + k, "category": c, "turns": [f"First {c} {k}?", f"Then {c} {k}?"]}
        for n, c in enumerate(CATEGORIES)
        for k in (0, 1)
    ]
    write(tmp_path / "question.jsonl", questions)
    references = [
        {"question_id": row["question_id"], "choices": [{"turns": ["Ref one", "Ref two"]}]}
        for row in questions
        if row["category"] in ("math", "reasoning", "coding")
    ]
    write(tmp_path / "reference_answer_x.jsonl", references)
    templates = {
        "single-v1": "T1 {question} {answer}",
        "single-math-v1": "M1 {question} {ref_answer_1} {answer}",
        "single-v1-multi-turn": "T2 {question_1} {answer_1} {question_2} {answer_2}",
        "single-math-v1-multi-turn": "M2 {ref_answer_1} {ref_answer_2} {answer_1} {answer_2}",
    }
    prompts = [
        {"name": name, "system_prompt": f"system of {name}", "prompt_template": text}
        for name, text in templates.items()
    ]
    write(tmp_path / "judge_prompts.jsonl", prompts)
    return tmp_path


def settings(folder: Path, server: Endpoint) -> SuiteSettings:
    judge = {"base_url": server.url, "model": "judge"}
    return SuiteSettings(judge=judge, options={"mt_bench": {"data": str(folder)}})


class Talker:
    """Answers with what it is asked; some second turns find no room."""

    def __init__(self, full: str = "none") -> None:
        self.full = full
        self.temperatures: dict[str, float] = {}

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        answers: list[str | None] = []
        for dialogue in dialogues:
            asked = dialogue[-1].content
            self.temperatures[asked.split()[1]] = decoding.temperature
            assert len(dialogue) == (1 if asked.startswith("First") else 3)
            answers.append(None if asked.startswith(f"Then {self.full}") else f"<{asked} {{0}}>")
        return answers


def rate(messages: list[dict[str, Any]]) -> str:
    """6 for a first turn, 8 for a second, one more with references."""
    text = messages[-1]["content"]
    return f"Fine. Rating: [[{(6 if text[1] == '1' else 8) + (text[0] == 'M')}]]"


def subject(model: Talker) -> EvalTarget:
    return EvalTarget(model=None, tokenizer=None, server=model)  # type: ignore[arg-type]


def test_both_turns_are_rated_with_fastchats_prompts_and_temperatures(folder: Path) -> None:
    model = Talker()
    with serving(Endpoint(rate)) as server:
        evaluator = make("mt_bench", settings(folder, server))
        result = run_evaluator(evaluator, subject(model))
    # Five categories of (6, 8) and three with references of (7, 9).
    assert result.metrics["score"].value == pytest.approx((5 * 7 + 3 * 8) / 8)
    assert result.metrics["turn_1"].value == pytest.approx((5 * 6 + 3 * 7) / 8)
    assert result.metrics["turn_2"].value == pytest.approx((5 * 8 + 3 * 9) / 8)
    assert model.temperatures == dict(TEMPERATURES)
    drawn = {category for category, each in TEMPERATURES.items() if each == 0.7}
    assert drawn == {"writing", "roleplay"}
    assert TEMPERATURES["stem"] == TEMPERATURES["humanities"] == 0.1
    assert sum(TEMPERATURES.values()) == pytest.approx(1.6)
    assert len(server.requests) == 32
    assert {request["temperature"] for request in server.requests} == {0.0}
    asked = {tuple(m["content"] for m in request["messages"]) for request in server.requests}
    one, two = "<First math 0? {0}>", "<Then math 0? {0}>"
    assert ("system of single-math-v1-multi-turn", f"M2 Ref one Ref two {one} {two}") in asked
    one, two = "<First stem 1? {0}>", "<Then stem 1? {0}>"
    assert ("system of single-v1", f"T1 First stem 1? {one}") in asked
    wanted = f"T2 First stem 1? {one} Then stem 1? {two}"
    assert ("system of single-v1-multi-turn", wanted) in asked
    record = next(each for each in result.records if each["group"] == "stem")
    assert [m["role"] for m in record["messages"]] == ["user", "assistant"] * 2
    assert record["judgements"] == ["Fine. Rating: [[6]]", "Fine. Rating: [[8]]"]
    # A beginning has questions of every category.
    assert {each["group"] for each in result.records[:8]} == set(CATEGORIES)
    assert result.about["judge"].startswith("judge at http://127.0.0.1")


def test_what_is_not_rated_is_an_error(folder: Path) -> None:
    def refuse(messages: list[dict[str, Any]]) -> str:
        return rate(messages) if "writing" not in messages[-1]["content"] else "I would say 9/10."

    with serving(Endpoint(refuse)) as server:
        evaluator = make("mt_bench", settings(folder, server))
        result = run_evaluator(evaluator, subject(Talker(full="stem")))
    errors = {record["group"]: record["error"] for record in result.records if record["error"]}
    assert errors == {
        "writing": "the judge gave turn 1 no rating from 1 to 10",
        "stem": "turn 2 does not fit the context",
    }
    assert result.num_errors == 4
    assert result.metrics["score"].n == 12


def test_a_judge_that_fails_once_is_an_error_of_that_question(folder: Path) -> None:
    fault = Fault(status=400, body=b'{"error": {"message": "too odd"}}')
    server = Endpoint(rate, fault=lambda number: fault if number == 20 else None)
    with serving(server):
        evaluator = make("mt_bench", replace(settings(folder, server), batch_size=4))
        result = run_evaluator(evaluator, subject(Talker()))
    assert result.num_errors == 1
    [error] = [record["error"] for record in result.records if record["error"]]
    assert error.startswith("judge: bad_request")


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[5]]", 5.0),
        ("[[7.5]] and then [[2]]", 7.5),
        ("it deserves [8] points", 8.0),
        ("see [1], so [[9]]", 9.0),
        ("Rating: [[0]]", None),
        ("Rating: [[11]]", None),
        ("Rating: 5", None),
        ("[[rating]]", None),
        ("", None),
    ],
)
def test_ratings_are_read_as_fastchat_reads_them(text: str, rating: float | None) -> None:
    assert read_rating(text) == rating


def test_without_judge_or_data_one_line_says_what_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=r"mt_bench: needs a judge.* set `judge`"):
        make("mt_bench", SuiteSettings())
    with serving(Endpoint(rate)) as server:
        with pytest.raises(SourceNotFoundError, match=r"question.jsonl.*put FastChat's files"):
            make("mt_bench", settings(tmp_path / "absent", server))
        (folder / "reference_answer_x.jsonl").unlink()
        with pytest.raises(DataError, match="question 30: the judge's prompt needs 'ref_answer_1'"):
            make("mt_bench", settings(folder, server))


def test_the_real_files(shared: Path) -> None:
    with serving(Endpoint(lambda messages: "[[4]]")) as server:
        given = replace(settings(Path(), server), options={}, data=str(shared / "data"))
        evaluator = make("mt_bench", given)
        model = Talker()
        model.chat = lambda dialogues, decoding: ["I am not sure."] * len(dialogues)  # type: ignore
        result = run_evaluator(evaluator, subject(model))
    assert (result.metrics["score"].value, result.metrics["score"].n) == (4.0, 80)
    assert len(server.requests) == 160
    # Thirty questions have references, asked about in both turns.
    marked = [r for r in server.requests if "Reference" in r["messages"][-1]["content"]]
    assert len(marked) == 60
