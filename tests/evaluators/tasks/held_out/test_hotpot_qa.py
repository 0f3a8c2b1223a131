"""HotpotQA: the stores, the steps, both modes, and the oracle over all questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from evaluators.models.target import Decoding, EvalTarget
from evaluators.runner import run_evaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.held_out.hotpot_qa import make
from evaluators.tasks.held_out.hotpot_qa.answers import exact_match, token_f1
from evaluators.tasks.held_out.hotpot_qa.demonstrations import react_text, with_demonstrations
from evaluators.tasks.held_out.hotpot_qa.dialogue import HotpotQaDialogue
from evaluators.tasks.held_out.hotpot_qa.environment import HotpotQaEnvironment
from evaluators.tasks.held_out.hotpot_qa.questions import LEVELS
from evaluators.tasks.registry import SuiteSettings
from tests.support.json_server import serving_json

FIRST = "hotpot_qa-test-easy-000"
PAGES = {
    "Red Kite": "The red kite is a bird. It is large. It nests in Wales. It eats worms. "
    "It soars. Its tail is forked. Its call is a whistle; the tail steers.",
    "Wales": "Wales is a country. Its capital is Cardiff.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for level in LEVELS:
        row = {
            "question": "What is the capital of the country where the red kite nests?",
            "answer": "Cardiff",
            "supporting_facts": [["Red Kite", 2], ["Wales", 1]],
            "context": [[title, text.split(". ")] for title, text in PAGES.items()],
        }
        row["context"] = [[title, [text]] for title, text in PAGES.items()]
        (tmp_path / f"{level}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return tmp_path


@given(st.text(), st.text())
def test_f1_is_symmetric_between_0_and_1_and_1_for_the_same(one: str, other: str) -> None:
    assert token_f1(one, one) == 1.0
    assert token_f1(one, other) == token_f1(other, one)
    assert 0.0 <= token_f1(one, other) <= 1.0
    assert not exact_match(one, other) or token_f1(one, other) == 1.0


def test_f1_counts_words_and_takes_yes_for_nothing_else() -> None:
    assert token_f1("The Red Kite!", "red kite") == 1.0
    assert token_f1("red kite of Wales", "kite") == pytest.approx(0.4)
    assert token_f1("yes it is", "yes") == token_f1("no", "no one") == 0.0
    assert exact_match("An owl, a kite", "the owl kite!")
    assert not exact_match("Ana", "Na")


def test_search_shows_five_sentences_and_lookup_goes_through_the_page(folder: Path) -> None:
    world = HotpotQaEnvironment(folder)
    world.reset(options={"task_id": FIRST})

    def see(action: str) -> str:
        return world.step(action)[0]

    assert see("lookup[tail]").startswith("No page is open")
    assert see("search[red KITE]").endswith("It soars.")
    assert see("lookup[tail]") == "(Result 1 / 2) Its tail is forked."
    assert see("lookup[Tail]").startswith("(Result 2 / 2) Its call")
    assert see("lookup[tail]") == "No more results."
    assert see("lookup[owl]") == "No results."
    assert see("search[capital Cardiff]") == "Could not find [capital Cardiff]. Similar: ['Wales']."
    assert see("lookup[tail]").startswith("No page is open")
    assert see("search[]") == "Could not find []. Similar: []."
    assert see("look[x]").startswith("Invalid action")
    _, reward, over, _, info = world.step("Finish[Cardiff city]")
    assert (over, info["exit_reason"]) == (True, "answered")
    assert reward == pytest.approx(2 / 3)


def test_turns_without_an_action_cost_a_step_and_ten_are_the_limit(folder: Path) -> None:
    dialogue = load_held_out("hotpot_qa", data=folder).make()
    dialogue.reset(options={"task_id": FIRST})
    assert (
        dialogue.parse("Thought 1: so\nAction 1: Search[Wales].\nObservation 1: x")
        == "Search[Wales]"
    )
    assert dialogue.parse("search[Wales]") == "search[Wales]"
    assert dialogue.parse("Thought: I search") is None
    for _ in range(9):
        text, _, over, _, info = dialogue.step("Thought: hm")
        assert (over, info["valid_format"]) == (False, False)
        assert text.startswith("Observation: Invalid action")
    assert dialogue.step("Thought: hm")[4]["exit_reason"] == "round_limit"


class _Scripted:
    """A model that goes on with fixed texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.asked = list(texts), []

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        return self.continue_text([dialogue[-1].content for dialogue in dialogues], decoding)

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        self.asked += [(prompt, decoding) for prompt in prompts]
        return [self.texts.pop(0) for _ in prompts]

    def next_token_logprobs(self, dialogues: Any, candidates: Any) -> Any:
        raise NotImplementedError


def evaluate(folder: Path, texts: Sequence[str], **options: Any) -> tuple[Any, _Scripted]:
    model = _Scripted(texts)
    options = {"hotpot_qa": {"data": str(folder), **options}}
    evaluator = make("hotpot_qa", SuiteSettings(options=options, batch_size=1))
    return run_evaluator(evaluator, EvalTarget(None, None, server=model)), model


def test_the_figure_is_the_mean_of_the_levels(folder: Path) -> None:
    answers = ["Action: finish[Cardiff]", "Action: finish[Cardiff city]", "no"] + ["no"] * 9
    # Two easy questions more, so that a mean over questions is another figure.
    easy = folder / "easy.jsonl"
    easy.write_text(easy.read_text("utf-8") * 3, "utf-8")
    # The last turn names the answer without giving it.
    answers[-1] = "Action: search[Cardiff]"
    found, model = evaluate(folder, [*answers, *answers[:1] * 2])
    assert found.metrics["f1"].value == pytest.approx((1 + 2 / 3) / 3)
    assert found.metrics["exact_match"].value == pytest.approx(1 / 3)
    assert [record["group"] for record in found.records] == [*LEVELS, "easy", "easy"]
    assert (found.primary, found.about["store"]) == ("f1", "distractor docstore")
    assert model.asked[0][1] == Decoding(256, stop=("\nObservation",))


def test_completion_mode_asks_for_thought_and_action_up_to_the_line(folder: Path) -> None:
    texts = ["Look.", "search[Wales]", "Now I know.", "finish[Cardiff]"] * 3
    found, model = evaluate(folder, texts, mode="completion")
    assert found.metrics["f1"].value == 1.0
    assert found.about["mode"] == "completion"
    prompts = [prompt for prompt, _ in model.asked[:4]]
    assert prompts[0].endswith("where the red kite nests?\nThought 1:")
    assert prompts[1].endswith("Thought 1: Look.\nAction 1:")
    assert prompts[3].endswith(
        "Action 1: search[Wales]\nObservation 1: Wales is a country. Its capital is Cardiff."
        "\nThought 2: Now I know.\nAction 2:"
    )
    assert all(decoding.stop == ("\n",) for _, decoding in model.asked)


def test_completion_mode_ends_where_the_prompt_is_too_long(folder: Path) -> None:
    # Looked at between steps: the action of a long thought is still asked for.
    texts = ["so " * 3000, "search[Wales]"] * 2 + ["so " * 3000, "finish[Cardiff]"]
    found, model = evaluate(folder, texts, mode="completion")
    ends = [record["exit_reason"] for record in found.records]
    assert ends == ["context_full", "context_full", "answered"]
    assert len(model.asked) == 6


@pytest.mark.parametrize("suffix", [".txt", ".py"])
def test_demonstrations_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    told = (
        "Question: Q?\nThought 1: T\nmore\nAction 1: Search[A]\nObservation 1: O\n"
        "Thought 2: U\nAction 2: Finish[B]"
    )
    text = told if suffix == ".txt" else f"X = 1 / 0\nREACT_EXAMPLE = {told!r}\n"
    file = tmp_path / f"shots{suffix}"
    file.write_text(text, "utf-8")
    own = HotpotQaDialogue.own_prompt()
    prompt = with_demonstrations(own, file)
    assert prompt.opening[:2] == own.opening[:2]
    assert react_text(prompt.opening[2:]) == told.replace("\nmore", " more")
    assert prompt.label.startswith("file:")
    file.write_text("nothing", "utf-8")
    with pytest.raises(DataError, match="expected"):
        with_demonstrations(own, file)


def test_live_wikipedia_speaks_to_a_mediawiki_server(folder: Path) -> None:
    def answer(asked: dict[str, Any]) -> Any:
        if asked.get("list") == "search":
            return {"query": {"search": [{"title": "Wales"}, {"title": "Whales"}]}}
        title = asked["titles"]
        if title == "Mercury":
            page = {"title": title, "extract": "may refer to", "pageprops": {"disambiguation": ""}}
        else:
            page = (
                {"title": title, "extract": PAGES[title]} if title in PAGES else {"missing": True}
            )
        return {"query": {"pages": [page]}}

    with serving_json(answer) as url:
        world = HotpotQaEnvironment(folder, store="wikipedia", wikipedia_url=url)
        world.reset(options={"task_id": FIRST})
        assert world.step("search[Wales]")[0] == PAGES["Wales"]
        assert world.step("lookup[cardiff]")[0].startswith("(Result 1 / 1)")
        for entity in ("Mercury", "Nowhere"):
            assert world.step(f"search[{entity}]")[0].endswith("Similar: ['Wales', 'Whales'].")
        assert world.store().label == "live Wikipedia (127.0.0.1)"
    with pytest.raises(SourceNotFoundError, match="use the store 'local'"):
        HotpotQaEnvironment(folder, store="wikipedia", wikipedia_url=url).store().find("Wales")


def test_bad_settings_and_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"mode": "x"}, "mode: found 'x', input should be 'chat' or 'completion'"),
        ({"store": "x"}, "store: found 'x', expected local or wikipedia"),
        ({"shop": "x"}, "option 'shop' is unknown"),
    ):
        given = {"hotpot_qa": {"data": str(folder), **options}}
        with pytest.raises(ConfigError, match=said):
            make("hotpot_qa", SuiteSettings(options=given))
    with pytest.raises(SourceNotFoundError, match=r"no easy\.jsonl"):
        make("hotpot_qa", SuiteSettings(data=str(tmp_path / "absent")))
    (folder / "hard.jsonl").write_text('{"question": "q"}\n', "utf-8")
    with pytest.raises(DataError, match=r"hard\.jsonl: record 1: found no 'supporting_facts'"):
        make("hotpot_qa", SuiteSettings(options={"hotpot_qa": {"data": str(folder)}}))


def test_the_oracle_answers_all_300_real_questions(shared: Path) -> None:
    settings = SuiteSettings(data=str(shared / "data"))
    evaluator = make("hotpot_qa", settings)
    items = evaluator.items()
    assert len(items) == 300
    assert {item.split("-")[2] for item in items[:3]} == set(LEVELS)
    played = play(load_held_out("hotpot_qa", data=shared / "data/hotpotqa"), items, OraclePolicy())
    assert [(game.reward, game.error) for game in played] == [(1.0, "")] * 300
    opening = len(HotpotQaDialogue.own_prompt().opening)
    seen = [m.content for game in played for m in game.messages[opening:]]
    assert not any(text.startswith("Observation: Could not find") for text in seen)


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_a_real_model_plays_in_both_modes(folder: Path, tiny_model_dir: Path, mode: str) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    options = {"hotpot_qa": {"data": str(folder), "mode": mode}}
    evaluator = make("hotpot_qa", SuiteSettings(options=options, max_new_tokens=6))
    found = run_evaluator(evaluator, EvalTarget(model, tokenizer))
    assert (found.metrics["f1"].value, found.num_errors) == (0.0, 0)
    # The tokenizer of this model makes more than 1,700 tokens of the prompt alone.
    ends = {"chat": {"round_limit", "context_full"}, "completion": {"context_full"}}
    assert {record["exit_reason"] for record in found.records} <= ends[mode]


def test_the_oracle_takes_the_evaluators_own_path(shared: Path) -> None:
    settings = SuiteSettings(data=str(shared / "data"), oracle=True)
    result = run_evaluator(make("hotpot_qa", settings), EvalTarget(None, None), limit=12)
    assert result.metrics["f1"].value == 1.0
    assert result.about["player"] == "oracle"
    assert {record["group"] for record in result.records} == {"easy", "medium", "hard"}
