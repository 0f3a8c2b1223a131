"""ReWOO: plans, tools, scoring, and questions through the evaluator's path."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from evaluators.models.judge import Verdict
from evaluators.models.target import Decoding, EvalTarget
from evaluators.runner import run_evaluator
from evaluators.tasks.held_out.rewoo import make
from evaluators.tasks.held_out.rewoo.calculator import calculate
from evaluators.tasks.held_out.rewoo.plans import Step, read_plan
from evaluators.tasks.held_out.rewoo.scoring import closed_match
from evaluators.tasks.held_out.rewoo.tools import RefusedError, ToolBox
from evaluators.tasks.registry import SuiteSettings
from tests.support.json_server import serving_json

PLAN = """Plan: Ask for the number.
#E1 = LLM[How many?]
Plan: Look it up.
#E2 = Wikipedia[page of #E1]
Plan: Double it. #E3 = Calculator[2 * #E1]"""


def test_plans_are_read_with_their_reasons() -> None:
    assert read_plan(f"Sure!\n{PLAN}\nDone.") == (
        Step("#E1", "Ask for the number.", "LLM", "How many?"),
        Step("#E2", "Look it up.", "Wikipedia", "page of #E1"),
        Step("#E3", "Double it.", "Calculator", "2 * #E1"),
    )
    assert read_plan("Plan: a\n#E1 = it is so")[0] == Step("#E1", "a", "", "it is so")
    assert read_plan("#E1 = LLM[a [b] c].")[0] == Step("#E1", "", "LLM", "a [b] c")
    assert read_plan("#E1 = LLM[cut o")[0] == Step("#E1", "", "LLM", "cut o")
    assert read_plan("The answer is 7.") == ()
    assert read_plan("Plan: a\n#E1 = LLM[b]\nPlan: without a step") is None
    assert read_plan("Plan: a\nPlan: b\n#E1 = LLM[c]") is None


def test_evidence_is_put_in_by_its_whole_name() -> None:
    step = Step("#E12", "", "LLM", "#E1 and #E11, not #E2")
    assert step.filled({"#E1": "one", "#E11": "#E1"}) == "[one] and [#E1], not #E2"


@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        max_leaves=8,
    )
)
def test_the_calculator_computes_as_python_does(expression: str) -> None:
    expected = float(eval(compile(ast.parse(expression, mode="eval"), "", "eval")))
    assert float(calculate(expression)) == pytest.approx(expected, rel=1e-9)


@given(st.text(max_size=40))
def test_the_calculator_runs_no_code_and_says_what_is_wrong(text: str) -> None:
    try:
        value = calculate(text)
    except ValueError as error:
        value = "0"
        said = str(error)
    else:
        said = "a value"
    assert math.isfinite(float(value))
    assert said


def test_the_calculator_takes_inserted_evidence_and_refuses_the_rest() -> None:
    assert calculate("[1,200] * 2^3 + $4") == "9604"
    assert calculate("x = sqrt(16) / 3") == "1.333333333"
    for text in ("__import__('os')", "9**9**9", "1/0", "(-8)**0.5", "a + 1", "True", "1e999"):
        with pytest.raises(ValueError, match=r"\w"):
            calculate(text)


def test_closed_answers_are_compared_by_rule() -> None:
    assert closed_match("Yes, because no one knows.", "Yes", "yes_no")
    assert not closed_match("Perhaps", "No", "yes_no")
    for said in ("That is not plausible.", "Not plausible", "It isn't plausible", "Implausible"):
        assert closed_match(said, "implausible", "plausible")
        assert not closed_match(said, "plausible", "plausible")
    assert closed_match("Plausible, not implausible", "plausible", "plausible")
    assert closed_match("1, 2 and 3", "3", "number")
    assert closed_match("It is 1,200.50 dollars", "1200.5", "number")
    assert not closed_match("none", "3", "number")
    assert closed_match("The Red Kite.", "red kite", "text")
    verdicts = ("CORRECT.", "**Correct**", "INCORRECT, for", "", "<think> The student", "Correctly")
    assert [Verdict(text).correct for text in verdicts] == [True, True, False, None, None, None]


def test_tools_without_net_or_keys_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SERPER_API_KEY", "WOLFRAM_ALPHA_APPID"):
        monkeypatch.delenv(variable, raising=False)
    tools = ToolBox()
    assert tools.working() == ("LLM", "Calculator")
    for tool, said in (
        ("Wikipedia", "not available"),
        ("Google", "SERPER_API_KEY is not set"),
        ("WolframAlpha", "WOLFRAM_ALPHA_APPID is not set"),
        ("SearchSOTU", "not available"),
        ("Oven", "no tool Oven"),
        ("Calculator", "Calculator failed"),
    ):
        with pytest.raises(RefusedError, match=said):
            tools.use(tool, "x y")


def test_tools_with_keys_ask_their_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "k")
    monkeypatch.setenv("WOLFRAM_ALPHA_APPID", "w")
    document = tmp_path / "speech.txt"
    document.write_text("\n".join(f"Passage {n} on topic{n}. {'word ' * 150}" for n in range(9)))

    def answer(asked: dict[str, Any]) -> Any:
        if "i" in asked:
            return f"{asked['i']} solved for {asked['appid']}"
        if "q" in asked:
            return {"organic": [{"snippet": "one"}, {"title": "x"}, {"snippet": asked["q"]}]}
        return {"query": {"pages": [{"title": "Wales", "extract": "A country. " * 9}]}}

    with serving_json(answer) as url:
        tools = ToolBox(document, url, url, url)
        assert len(tools.working()) == 6
        assert tools.use("Google", "two") == "one two"
        assert tools.use("WolframAlpha", "x^2=1") == "x^2=1 solved for w"
        assert tools.use("Wikipedia", "Wales") == " ".join(["A country."] * 5)
        assert "Passage 6 " in tools.use("SearchSOTU", "what about topic6?")
        assert tools.use("SearchSOTU", "?") == "Nothing was found."


class _Model:
    """Answers by a function of the prompt and of the decoding."""

    def __init__(self, reply: Callable[[str, Decoding], str | None]) -> None:
        self.reply = reply
        self.batches: list[int] = []

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        self.batches.append(len(dialogues))
        return [self.reply(dialogue[-1].content, decoding) for dialogue in dialogues]

    def continue_text(self, prompts: Any, decoding: Any) -> Any:
        raise NotImplementedError

    def next_token_logprobs(self, dialogues: Any, candidates: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rewoo").mkdir()
    rows = "".join(
        f"Answer with 'Yes' or 'No': is {n} even?,{'Yes' if n % 2 == 0 else 'No'}\n"
        for n in range(6)
    )
    (tmp_path / "rewoo/strategy_qa.csv").write_text(f"input,target\n{rows}", "utf-8")
    (tmp_path / "rewoo/physics_question.csv").write_text("input,target\nq,\"['7 m']\"\n", "utf-8")
    return tmp_path


def reply(prompt: str, decoding: Decoding) -> str | None:
    number = prompt.rpartition("is ")[2].split()[0]
    if prompt.startswith("Make a plan"):
        # One question gets a whole plan at the third try only, one never, one none at all.
        broken = number == "5" or (number == "4" and decoding.seed != 2)
        return "Plan: a reason alone" if broken else None if number == "3" else PLAN
    if prompt.startswith("Answer in a few words"):
        return "3"
    if number == "3":
        assert "Result:" not in prompt
        return "No."
    assert "Result: 3\n" in prompt
    assert "Result: 6\n" in prompt
    assert "Result: Wikipedia is not available here.\n" in prompt
    return "Yes, surely."


def test_questions_go_through_planner_tools_and_solver(folder: Path) -> None:
    evaluator = make("rewoo", SuiteSettings(data=str(folder), batch_size=4))
    model = _Model(reply)
    found = run_evaluator(evaluator, EvalTarget(None, None, server=model))
    assert found.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert found.metrics["planned"].value == pytest.approx(4 / 6)
    assert found.metrics["tool_refused"].value == pytest.approx(4 / 6)
    by_question = {
        record["messages"][0]["content"].rpartition("is ")[2]: record for record in found.records
    }
    assert by_question["5 even?"]["exit_reason"] == "no_plan"
    assert len(by_question["5 even?"]["messages"]) == 6  # three tries
    assert by_question["3 even?"]["exit_reason"] == "answered"  # without evidence
    assert by_question["3 even?"]["scores"]["accuracy"] == 1.0
    assert by_question["4 even?"]["refused"] == {"Wikipedia": 1}
    assert max(model.batches) == 4
    assert found.about["left_out"].count("needs a judge") == 1
    assert "trivia_qa: no trivia_qa.jsonl" in found.about["left_out"]
    assert found.num_errors == 0


def test_a_judge_scores_open_answers(folder: Path) -> None:
    pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")
    from tests.support.endpoint import Endpoint, serving

    def verdict(messages: list[dict[str, Any]]) -> str:
        text = messages[-1]["content"]
        same = "Right answer: ['7 m']" in text and "Student's answer: 7 m" in text
        return "CORRECT" if same else "INCORRECT" if "is 0 even" in text else "Let me think"

    def always(prompt: str, decoding: Decoding) -> str:
        return PLAN if prompt.startswith("Make a plan") else "7 m"

    with serving(Endpoint(verdict)) as server:
        judge = {"base_url": server.url, "model": "j"}
        evaluator = make("rewoo", SuiteSettings(data=str(folder), judge=judge))
        found = run_evaluator(evaluator, EvalTarget(None, None, server=_Model(always)))
    scored: dict[str, list[float]] = {}
    for record in found.records:
        scored.setdefault(record["group"], []).extend(
            [record["scores"]["accuracy"]] if record["scores"] else []
        )
    assert scored == {"strategy_qa": [0.0], "physics_question": [1.0]}
    assert found.num_errors == 5  # a judge that says neither has not said no
    told = {record["error"] for record in found.records}
    assert told == {"", "the judge said neither CORRECT nor INCORRECT"}
    assert found.about["scoring"].startswith("judge j at")


def test_bad_settings_and_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="option 'shop' is unknown"):
        make("rewoo", SuiteSettings(options={"rewoo": {"shop": 1}}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="found no task set") as raised:
        make("rewoo", SuiteSettings(data=str(tmp_path / "empty")))
    assert "\n" not in str(raised.value)
    (folder / "rewoo/strategy_qa.csv").write_text("question,target\nq,Yes\n", "utf-8")
    with pytest.raises(DataError, match=r"record 1: found fields question, target, expected input"):
        make("rewoo", SuiteSettings(data=str(folder)))


def test_questions_are_those_that_pandas_samples(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = "".join(f"is {n} even?,{'Yes' if n % 2 == 0 else 'No'}\n" for n in range(90))
    (folder / "rewoo/strategy_qa.csv").write_text(f"input,target\n{rows}", "utf-8")
    evaluator = make("rewoo", SuiteSettings(data=str(folder)))
    frame = pandas.read_csv(folder / "rewoo/strategy_qa.csv")
    drawn = frame.sample(50, random_state=2024)["input"].tolist()
    assert [evaluator.question(item).text for item in evaluator.items()] == drawn


def test_the_right_answers_score_1_on_all_real_sets(shared: Path) -> None:
    evaluator = make("rewoo", SuiteSettings(data=str(shared / "data")))
    gold = {
        evaluator.question(item).text: evaluator.question(item).answer for item in evaluator.items()
    }

    def answer(prompt: str, decoding: Decoding) -> str:
        if prompt.startswith("Make a plan"):
            return "Plan: none\n#E1 = nothing"
        return gold[prompt.rpartition("\nQuestion: ")[2].removesuffix("\nAnswer:")]

    found = run_evaluator(evaluator, EvalTarget(None, None, server=_Model(answer)))
    assert (found.metrics["accuracy"].value, found.metrics["accuracy"].n) == (1.0, 200)
    assert found.about["sets"] == "hotpot_qa, gsm8k, strategy_qa, sports_understanding"


def test_a_real_model_is_asked_for_plans(folder: Path, tiny_model_dir: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    evaluator = make("rewoo", SuiteSettings(data=str(folder), max_new_tokens=6))
    found = run_evaluator(evaluator, EvalTarget(model, tokenizer), limit=2)
    assert (found.metrics["accuracy"].value, found.metrics["planned"].value) == (0.0, 0.0)
    assert {record["exit_reason"] for record in found.records} <= {"answered", "no_answer"}
    assert len(found.records[0]["messages"]) == 4  # planner and solver
