"""Evaluators of forgetting on a file of chat, from the keys of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.evaluation.from_config import schedules
from agenttuning_plugin.preflight.evaluators import check_evaluators
from evaluators.tasks.general_kl import GeneralKLEvaluator
from evaluators.tasks.general_loss import GeneralLossEvaluator


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    file = tmp_path / "chat.jsonl"
    rows = [
        [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]
        for n in range(5)
    ]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), "utf-8")
    return file


def section(*evaluators: dict[str, object]) -> AgentTuningSection:
    return AgentTuningSection.model_validate(
        {"agent": "a", "general": "b", "holdout": 64, "evaluators": list(evaluators)}
    )


def test_two_losses_on_two_files_and_a_divergence(chat: Path) -> None:
    only_files = {"agent": "a", "general": "b", "holdout": 0}
    one = {"type": "general_loss", "data": str(chat)}
    assert AgentTuningSection.model_validate({**only_files, "evaluators": [one]}).evaluators
    made, lacking = schedules(
        section(
            {"type": "general_loss", "data": str(chat), "limit": 3},
            {"type": "general_loss", "data": str(chat), "name": "chat"},
            {"type": "general_kl", "data": str(chat), "reference": "base"},
        ),
        None,
    )
    assert not lacking
    loss, chat_loss, kl = (each.evaluator for each in made)
    assert (loss.name, chat_loss.name, kl.name) == ("general", "chat", "general_kl")
    assert (len(loss.items()), len(chat_loss.items()), len(kl.items())) == (3, 5, 5)
    assert type(loss) is GeneralLossEvaluator
    assert isinstance(kl, GeneralKLEvaluator)
    assert kl.about()["reference"] == "base"


def test_names_are_unique_and_limits_need_a_file(chat: Path) -> None:
    one = {"type": "general_loss", "data": str(chat)}
    with pytest.raises(ValidationError, match="general"):
        section(one, one)
    with pytest.raises(ValidationError, match="limit: found without data"):
        section({"type": "general_kl", "limit": 3})
    with pytest.raises(ValidationError, match="general_kl needs a general source and a holdout"):
        AgentTuningSection.model_validate(
            {"agent": "a", "general": "b", "holdout": 0, "evaluators": [{"type": "general_kl"}]}
        )
    with pytest.raises(ValidationError, match="name"):
        section({**one, "name": "two words"})


def test_check_reads_the_file_and_names_what_is_missing(chat: Path) -> None:
    found = list(check_evaluators(section({"type": "general_kl", "data": str(chat)})))
    assert not [each for each in found if each.level == "error"]
    held = list(check_evaluators(section({"type": "general_kl"})))
    assert "64 conversations" in held[0].detail
    (error,) = check_evaluators(section({"type": "general_loss", "data": str(chat) + ".no"}))
    assert error.level == "error"
    assert ".no" in error.detail
