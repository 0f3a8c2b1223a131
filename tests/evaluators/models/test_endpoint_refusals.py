"""Requests that a server refuses, cuts short or gives up are no wrong answers of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer, refusal
from dataset_builders.endpoints.endpoint import Endpoint as Place
from dataset_builders.errors import EndpointError
from evaluators.evaluator import EvalResult, EvalTarget
from evaluators.models.endpoint import EndpointModel
from evaluators.models.judge import Judge
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.general.gsm8k import make as make_gsm8k
from evaluators.tasks.registry import SuiteSettings
from tests.evaluators.tasks.general.test_gsm8k import folder as gsm8k_folder
from tests.evaluators.tasks.general.test_mmlu import archive, made
from tests.support.endpoint import ANSWER, Endpoint, Fault, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

NO_SYSTEM = {"error": {"message": "System role not supported", "code": 400}}
BAD = Fault(400, body=b'{"error": {"message": "unsupported value", "code": 400}}')


def served(endpoint: Endpoint, **settings: Any) -> EndpointModel:
    return EndpointModel(
        Place("m", endpoint.url, **{"tries": 3, "back_off": 0.01, "timeout": 20.0, **settings})
    )


def measured(endpoint: Endpoint, evaluator: Any, limit: int | None = None) -> EvalResult:
    with serving(endpoint):
        model = served(endpoint)
        try:
            return run_evaluator(
                evaluator, EvalTarget(model=None, tokenizer=None, server=model), limit=limit
            )
        finally:
            model.close()


def gsm8k(tmp_path: Path, questions: int = 4) -> Any:
    data = {"data": str(gsm8k_folder(tmp_path, questions)), "shots": 2}
    return make_gsm8k("gsm8k", SuiteSettings(options={"gsm8k": data}))


def solved(messages: list[dict[str, Any]]) -> str:
    apples = int(messages[-1]["content"].split()[3])
    return f"The answer is {1000 + apples}."


def fault_where(endpoint: list[Endpoint], words: str, fault: Fault) -> Any:
    def of(number: int) -> Fault | None:
        return fault if words in json.dumps(endpoint[0].requests[number]["messages"]) else None

    return of


def faulty(reply: Any, words: str, fault: Fault) -> Endpoint:
    itself: list[Endpoint] = []
    itself.append(Endpoint(reply, fault_where(itself, words, fault)))
    return itself[0]


@pytest.fixture(params=[400, 422, 500])
def no_system(request: pytest.FixtureRequest) -> Endpoint:
    refused = Fault(request.param, body=json.dumps(NO_SYSTEM).encode())
    return faulty(solved, '"role": "system"', refused)


def test_a_system_message_that_is_refused_opens_the_first_user_turn(
    no_system: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = measured(no_system, gsm8k(tmp_path))
    assert (result.metrics["accuracy"].value, result.num_errors) == (1.0, 0)
    last = no_system.requests[-1]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant"] * 2 + ["user"]
    assert last[0]["content"].startswith("Solve each word problem.")
    assert "\n\nQuestion: " in last[0]["content"]
    assert caplog.text.count("rejects system messages") == 1


def test_one_that_was_accepted_is_never_moved() -> None:
    endpoint = faulty(lambda messages: "ok", "refuse me", BAD)
    with serving(endpoint):
        model = served(endpoint).for_task()
        system = Message("system", "Be brief.")
        assert model.chat([[system, Message("user", "x")]], Decoding(4)) == ["ok"]
        [refused] = model.chat([[system, Message("user", "refuse me")]], Decoding(4))
        model._model.close()
    assert refusal(refused).startswith("bad_request: HTTP 400")
    assert len(endpoint.requests) == 2


def test_a_bad_request_is_an_error_of_its_item(tmp_path: Path) -> None:
    result = measured(faulty(solved, 'There are 2 apples?"}]', BAD), gsm8k(tmp_path))
    assert (result.metrics["accuracy"].value, result.metrics["accuracy"].n) == (1.0, 3)
    [error] = [record["error"] for record in result.records if record["error"]]
    assert error.startswith("bad_request: HTTP 400")


@pytest.mark.parametrize("questions", [4, 40])
def test_where_all_are_refused_the_task_is_not_measured(questions: int, tmp_path: Path) -> None:
    """Also after another task was answered on the same connections."""
    endpoint = faulty(lambda messages: "ok", "Question", BAD)
    evaluator = gsm8k(tmp_path, questions)
    with serving(endpoint):
        model = served(endpoint)
        subject = EvalTarget(model=None, tokenizer=None, server=model)
        assert subject.language_model().chat([[Message("user", "hello")]], Decoding(3)) == ["ok"]
        if questions == 4:
            result = run_evaluator(evaluator, subject)
            assert result.metrics == {}
            assert result.error.startswith("all 4 tasks failed: bad_request: HTTP 400")
        else:
            with pytest.raises(EndpointError, match="all requests are refused: bad_request"):
                run_evaluator(evaluator, subject)
        model.close()
    assert len(endpoint.requests) < 60


def test_an_episode_whose_request_is_refused_is_an_error() -> None:
    words = "which we do not discuss"

    def reply(messages: list[dict[str, Any]]) -> str:
        return words if len(messages) < 4 else ANSWER

    evaluator = AgentTaskEvaluator("database", num_tasks=2)
    result = measured(faulty(reply, words, BAD), evaluator)
    assert {record["exit_reason"] for record in result.records} <= {"bad_request", "bad_format"}
    for record in result.records:
        assert (record["scores"] == {}) is (record["exit_reason"] == "bad_request")


def letters(top: list[tuple[str, float]], **usage: int) -> bytes:
    listed = [{"token": token, "logprob": math.log(p)} for token, p in top]
    choice = {"message": {"content": "A"}, "logprobs": {"content": [{"top_logprobs": listed}]}}
    return json.dumps({"choices": [choice], **({"usage": usage} if usage else {})}).encode()


TOP = [("A", 0.30), ("B", 0.20), (" B", 0.20), ("▁C", 0.1), ("D", 0.05), ("ĠD", 0.05)]


def test_probabilities_of_both_spellings_are_summed_once(tmp_path: Path) -> None:
    archive(tmp_path)
    body = letters(TOP, prompt_tokens=30, completion_tokens=1)
    result = measured(Endpoint(lambda m: "", lambda n: Fault(body=body)), made(tmp_path), 2)
    for record in result.records:
        chances = [math.exp(value) for value in record["logprobs"]]
        assert chances == pytest.approx([0.3, 0.4, 0.1, 0.1])
        assert (record["letter_mass"], record["prompt_tokens"]) == (pytest.approx(0.9), 30)
    assert result.warning == ""


def test_one_filtered_question_is_an_error_of_its_own_and_is_asked_again(tmp_path: Path) -> None:
    archive(tmp_path)
    filtered = b'{"error": {"message": "content management policy", "code": "content_filter"}}'
    good = letters(TOP, prompt_tokens=30, completion_tokens=1)

    def fault(number: int) -> Fault:
        return Fault(400, body=filtered) if number == 1 else Fault(body=good)

    result = measured(Endpoint(lambda m: "", fault), made(tmp_path), 6)
    assert (result.num_errors, result.metrics["accuracy"].n) == (1, 5)
    [error] = [record["error"] for record in result.records if record["error"]]
    assert error.startswith("refused_by_endpoint")


def test_2048_tokens_are_kept_by_the_servers_count(tmp_path: Path) -> None:
    archive(tmp_path)
    itself: list[Endpoint] = []

    def fault(number: int) -> Fault:
        # A message has 300 tokens here: a system message, five turns and a question fit.
        count = 300 * len(itself[0].requests[number]["messages"])
        return Fault(body=letters(TOP, prompt_tokens=count, completion_tokens=1))

    itself.append(Endpoint(lambda m: "", fault))
    result = measured(itself[0], made(tmp_path), 4)
    assert result.num_errors == 0
    # 6 messages of 300 tokens fit in 2,047, 8 do not: two shots of five.
    assert {(record["shots"], record["prompt_tokens"]) for record in result.records} == {(2, 1800)}


def test_a_server_that_does_not_count_is_warned_of(tmp_path: Path) -> None:
    archive(tmp_path)
    result = measured(Endpoint(lambda m: "", lambda n: Fault(body=letters(TOP))), made(tmp_path), 4)
    assert "does not report how many tokens 4 of 4 prompts have" in result.warning


def test_an_answer_cut_by_the_context_drops_shots(tmp_path: Path) -> None:
    def reply(messages: list[dict[str, Any]]) -> dict[str, Any]:
        if len(messages) > 4:  # More than one shot leaves room for 41 tokens.
            return {"content": "First", "finish_reason": "length", "completion_tokens": 41}
        return {"content": solved(messages)}

    result = measured(Endpoint(reply), gsm8k(tmp_path))
    assert (result.metrics["accuracy"].value, result.num_errors) == (1.0, 0)
    assert {record["shots"] for record in result.records} == {1}
    assert result.warning == ""


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            {"content": "So " * 9, "finish_reason": "length"},
            "4 of 4 answers are cut at the token limit",
        ),
        ({"content": ""}, "4 of 4 answers are empty"),
    ],
)
def test_mostly_cut_or_empty_answers_are_warned_of(
    reply: dict[str, Any], words: str, tmp_path: Path
) -> None:
    result = measured(Endpoint(lambda messages: dict(reply)), gsm8k(tmp_path))
    assert result.num_errors == 0
    assert words in result.warning


def test_text_completions_are_read_by_the_same_rules() -> None:
    said = [
        {"text": "half", "finish_reason": "abort"},
        {"text": "whole", "finish_reason": "stop"},
        {"text": "cut", "finish_reason": "length"},
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 2}

    def fault(number: int) -> Fault:
        return Fault(body=json.dumps({"choices": [said[number]], "usage": usage}).encode())

    endpoint = Endpoint(lambda m: "", fault, blind=True)
    with serving(endpoint):
        model = served(endpoint)
        assert model.continue_text(["x"], Decoding(9)) == ["whole"]
        assert model.continue_text(["y"], Decoding(9)) == [None]
        model.close()
    assert endpoint.counts.total() == 3


def test_a_judge_reads_replies_by_the_same_rules() -> None:
    said: dict[str, dict[str, Any]] = {
        "cut": {"content": "CORR", "finish_reason": "length", "completion_tokens": 1},
        "given up": {"content": "INCORRECT", "finish_reason": "abort"},
    }
    seen: set[str] = set()

    def reply(messages: list[dict[str, Any]]) -> dict[str, Any]:
        text = messages[-1]["content"]
        if text == "cut" or (text in said and text not in seen):
            seen.add(text)
            return dict(said[text])
        return {"content": "CORRECT"}

    dialogues = [[Message("user", text)] for text in ("cut", "given up", "bad", "good")]
    with serving(faulty(reply, "bad", BAD)) as endpoint:
        verdicts = Judge({"base_url": endpoint.url, "model": "j"}, "b").ask(dialogues, 16)
    assert [each.correct for each in verdicts] == [None, True, None, True]
    assert verdicts[0].error.startswith("judge: context_full")
    assert verdicts[2].error.startswith("judge: bad_request")


def test_a_judge_that_refuses_all_is_one_line() -> None:
    with serving(faulty(lambda m: "CORRECT", "rate", BAD)) as endpoint:
        judge = Judge({"base_url": endpoint.url, "model": "j"}, "b")
        with pytest.raises(EndpointError, match="bad_request"):
            judge.ask([[Message("user", f"rate {n}")] for n in range(3)])


def test_an_answer_is_its_text() -> None:
    answer = Answer("said", cut=True)
    assert (answer, json.dumps([answer]), len(answer)) == ("said", '["said"]', 4)
