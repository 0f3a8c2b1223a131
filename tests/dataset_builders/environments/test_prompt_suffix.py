"""`prompt_suffix`: a text appended to the prompt of every task of an environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.prompts import with_suffix
from dataset_builders.errors import DataError
from dataset_builders.rollouts.model_policies import BatchingPolicy
from dataset_builders.rollouts.play import play
from tests.support.own_environments import write_desk

SUFFIX = "The result must be correct."


def shown(spec: EnvironmentSpec) -> tuple[Sequence[Message], str]:
    """The dialogue that a model is shown first, and the label of the prompt."""
    seen: list[Sequence[Message]] = []

    def answer(
        dialogues: Sequence[Sequence[Message]], limit: int, tools: Sequence[str]
    ) -> list[str]:
        seen.extend(dialogues)
        return ["nothing"] * len(dialogues)

    (played,) = play(spec, spec.task_ids("train")[:1], BatchingPolicy(answer))
    return seen[0], played.prompt


@pytest.mark.parametrize(
    ("options", "role"), [({}, "user"), ({"dialogue": "tools"}, "system")], ids=["text", "tools"]
)
def test_the_model_is_shown_it(options: dict[str, str], role: str) -> None:
    plain, label = shown(load_environment("database", **options))
    with_it, other = shown(load_environment("database", prompt_suffix=SUFFIX, **options))
    assert with_it[0] == Message(plain[0].role, f"{plain[0].content}\n\n{SUFFIX}")
    assert plain[0].role == role
    assert with_it[1:] == plain[1:]
    # Scores with different prompts are told apart; those without a suffix are as they were.
    assert label != other


def test_an_own_environment_in_its_process(tmp_path: Path) -> None:
    messages, _ = shown(load_environment(write_desk(tmp_path), prompt_suffix=SUFFIX))
    assert [each.content for each in messages] == [f"Pay.\n\n{SUFFIX}", "3, please."]


def test_labels_without_a_suffix_stay_as_they_were() -> None:
    # As recorded in tests/assets/saved/collected.
    assert load_environment("database").wording().label == "own:d73b7457"


def test_a_dialogue_without_a_prompt() -> None:
    assert with_suffix([Message("user", "")], SUFFIX) == [Message("user", SUFFIX)]
    with pytest.raises(DataError, match="found neither a system nor a user message"):
        with_suffix([Message("assistant", "a")], SUFFIX)
