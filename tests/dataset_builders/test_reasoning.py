"""Thoughts are taken off a turn before anything reads it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.collection.filters import thought_of
from dataset_builders.endpoints.answer import Answer, read_answer
from dataset_builders.environments import load_environment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.instructions.thoughts import tidy
from dataset_builders.reasoning import (
    THOUGHT_LABEL,
    mark_tokens,
    opens_thought,
    said_from,
    spoken,
    with_tags,
)

HARMONY = (
    "<|channel|>analysis<|message|>draft<|end|><|start|>assistant<|channel|>commentary"
    "<|message|>more<|end|><|start|>assistant<|channel|>final<|message|>said<|return|>"
)


@pytest.mark.parametrize(
    ("text", "said", "reasoning"),
    [
        ("said", "said", ""),
        ("<think>\ndraft\n</think>\n\nsaid", "said", "draft"),
        ("<think>\n\n</think>\n\nsaid", "said", ""),
        ("<Thinking>draft</Thinking>said", "said", "draft"),
        ("<seed:think>draft</seed:think>said", "said", "draft"),
        ("<thought>\ndraft</thought>\nsaid", "said", "draft"),
        ("[THINK]draft[/THINK]said", "said", "draft"),
        ("◁think▷draft◁/think▷said", "said", "draft"),
        (
            "<|START_THINKING|>draft<|END_THINKING|><|START_RESPONSE|>said<|END_RESPONSE|>",
            "said",
            "draft",
        ),
        ("<|begin_of_thought|>draft<|end_of_thought|>said", "said", "draft"),
        ("<|channel>thought\ndraft\n<channel|>said", "said", "draft"),
        (HARMONY, "said", "draft\n\nmore"),
        ("analysisdraftassistantfinalsaid", "said", "draft"),
        # What a template has opened in the prompt.
        ("draft\n</think>\n\nsaid", "said", "draft"),
        ("a\n</think>\nb\n<think>c</think>said", "b\nsaid", "a\n\nc"),
        # Several thoughts; what is said between them stays.
        ("<think>a</think>one\n<think>b</think>two", "one\ntwo", "a\n\nb"),
        # What nothing closes.
        ("<think>\nAction: x", "", "Action: x"),
        ("[THINK]draft", "", "draft"),
        ("<|channel|>analysis<|message|>draft", "", "draft"),
        ("<|channel>thought\ndraft", "", "draft"),
        ("one\n<think>b", "", "b"),
        # Words about marks are no marks.
        *(
            (text, text, "")
            for text in (
                "Put it into <think> and </think> tags.",
                "The <think> tag.",
                "analysis of the final",
            )
        ),
    ],
)
def test_thoughts_are_taken_off(text: str, said: str, reasoning: str) -> None:
    answer = read_answer(text)
    assert (answer, answer.reasoning) == (said, reasoning)
    assert spoken(text) == said
    assert read_answer(answer).reasoning == reasoning


def test_a_thought_that_the_prompt_opened_and_nothing_closes_is_no_turn() -> None:
    answer = read_answer("Action: x", opened=True)
    assert (answer, answer.reasoning) == ("", "Action: x")
    assert read_answer("a</think>b", opened=True) == "b"
    # Some models open it once more.
    assert read_answer("<think>a</think>b", opened=True) == "b"
    assert opens_thought("<|im_start|>assistant\n<think>\n")
    assert opens_thought("[/INST][THINK]")
    assert not opens_thought("<think>\n\n</think>\n\n")


@given(st.text())
def test_text_without_marks_stays_as_it_is(text: str) -> None:
    if not mark_tokens([text]) and "think" not in text.lower():
        assert spoken(text) == text


@given(st.lists(st.sampled_from(["<think>", "</think>", "\n", "a", "[THINK]", "<|channel|>"])))
def test_nothing_is_left_to_be_taken_off(parts: list[str]) -> None:
    said = spoken("".join(parts))
    assert spoken(said) == said


def test_an_answer_survives_copies_and_other_processes() -> None:
    for made in (copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))):
        answer = made(Answer("said", reasoning="thought", cut=True))
        assert (answer, answer.reasoning, answer.cut) == ("said", "thought", True)
    assert read_answer(Answer("<think>a", cut=True)).cut
    answer = read_answer(with_tags("said", "thought"))
    assert (answer, answer.reasoning) == ("said", "thought")
    assert with_tags("said", None) == "said"


def test_marks_among_special_tokens() -> None:
    assert mark_tokens(["<s>", "[THINK]", "[/THINK]", "<|end|>"]) == {"[THINK]", "[/THINK]"}
    harmony = {"<|channel|>", "<|message|>", "<|start|>", "<|end|>"}
    assert mark_tokens({*harmony, "<|return|>"}) == harmony


def test_the_place_behind_thoughts() -> None:
    for text in ("<think>a</think>b", "a</think>b", HARMONY.removesuffix("<|return|>")):
        assert text[said_from(text) :] == spoken(text)
    assert said_from("b") == 0
    assert said_from("<think>a") == len("<think>a")


DRAFT = {
    "database": "Action: Operation\n```sql\nDROP TABLE x\n```\n",
    "webshop": "Action:\nclick[buy now]\n",
    "os": "Act: bash\n```bash\nrm -r x\n```\n",
    "knowledge_graph": "Action: get_relations(draft)\n",
    "mind2web": "Answer: B.\nAction: TYPE\nValue: draft\n",
}
REAL = {
    "database": "So.\nAction: Answer\nFinal Answer: 1",
    "webshop": "Thought: look.\n\nAction:\nsearch[shoes]",
    "os": "Think: look.\n\nAct: bash\n\n```bash\nls\n```",
    "knowledge_graph": "Thought: x\nAction: get_relations(real)",
    "mind2web": "Answer: C.\nAction: CLICK",
}


@pytest.fixture(params=sorted(DRAFT))
def dialogue(request: pytest.FixtureRequest) -> Iterator[Dialogue]:
    made = load_environment(request.param).make()
    yield made
    made.close()


@pytest.mark.parametrize(("open_", "close"), [("<think>\n", "</think>\n\n"), ("", "</think>\n")])
def test_no_environment_takes_a_draft_for_the_action(
    dialogue: Dialogue, open_: str, close: str
) -> None:
    draft, real = DRAFT[dialogue.name], REAL[dialogue.name]
    assert dialogue.parse(draft) != dialogue.parse(real)
    assert dialogue.parse(f"{open_}Maybe\n{draft}no.\n{close}{real}") == dialogue.parse(real)
    assert dialogue.parse(f"<think>\n{draft}") == dialogue.parse("")


@pytest.mark.parametrize(
    "label", ["Thought: ", "Think: ", "THOUGHT 2 :", "Reason:\n", "Reasoning: "]
)
def test_one_label_of_a_thought_is_known_to_filters_views_and_replies(label: str) -> None:
    assert thought_of(f"{label}look\nAction: go") == "look"
    assert tidy(f"{label}look") == "look"
    assert THOUGHT_LABEL.sub("", "I thought: no") == "I thought: no"
