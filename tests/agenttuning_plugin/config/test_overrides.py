"""Overrides beside the section: moved into it, or refused, never dropped."""

from __future__ import annotations

from typing import Any

import pytest

from agenttuning_plugin.config.overrides import apply_overrides, check_command_line
from agenttuning_plugin.config.rules import check_recipe
from dataset_builders.errors import ConfigError


def recipe(**keys: Any) -> dict[str, Any]:
    section = {
        "eta": 0.2,
        "agent": "agent.jsonl",
        "general": [{"path": "chat.json"}, "more.json"],
        "evaluators": [{"type": "agent_task", "num_tasks": 4}],
    }
    return {"max_steps": 10, "agenttuning": section, **keys}


def found(cfg: dict[str, Any], path: str) -> Any:
    value: Any = cfg
    for part in path.split("."):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("agenttuning__eta", 0.5, "agenttuning.eta"),
        ("agenttuning.eta", 0, "agenttuning.eta"),
        ("agenttuning__task_weights", {"db": 2}, "agenttuning.task_weights"),
        ("agenttuning__evaluation__every", 5, "agenttuning.evaluation.every"),
        ("agenttuning.evaluation.best.floor.by", 0.1, "agenttuning.evaluation.best.floor.by"),
        ("agenttuning.evaluators.0.num_tasks", 8, "agenttuning.evaluators.0.num_tasks"),
        ("agenttuning__agent__limit", 3, "agenttuning.agent.limit"),
        ("agenttuning__general__0__weight", 3, "agenttuning.general.0.weight"),
    ],
)
def test_an_override_reaches_the_section(key: str, value: Any, place: str) -> None:
    cfg = recipe(**{key: value})
    assert apply_overrides(cfg) == [key]
    assert found(cfg, place) == value
    assert set(cfg) == {"max_steps", "agenttuning"}


def test_axolotl_splits_a_flag_once() -> None:
    cfg = recipe()
    cfg["agenttuning"]["evaluation__every"] = 7  # from --agenttuning__evaluation__every 7
    apply_overrides(cfg)
    assert check_recipe(cfg).evaluation.every == 7


def test_a_source_named_by_its_path_keeps_it() -> None:
    cfg = recipe(agenttuning__agent__limit=3)
    apply_overrides(cfg)
    (source,) = check_recipe(cfg).agent
    assert (source.path, source.limit) == ("agent.jsonl", 3)


def test_overrides_need_no_section_to_stand_in() -> None:
    cfg = {"max_steps": 1, "agenttuning__eta": 1, "agenttuning.agent": "a.jsonl"}
    apply_overrides(cfg)
    assert check_recipe(cfg).eta == 1


def test_a_section_that_is_no_mapping_is_not_replaced() -> None:
    cfg = {"agenttuning": "mix.yaml", "agenttuning__eta": 0.3}
    with pytest.raises(ConfigError, match=r"agenttuning__eta: found 'mix\.yaml'"):
        apply_overrides(cfg)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"agenttuning_eta": 0}, "agenttuning_eta: unknown key, expected agenttuning, or"),
        ({"agenttuningeta": 0}, "agenttuningeta: unknown key"),
        ({"AgentTuning": {}}, "AgentTuning: unknown key"),
        ({"AgentTuning__eta": 0}, "AgentTuning__eta: unknown key"),
        ({"agenttuning-eta": 0}, "agenttuning-eta: unknown key"),
        ({"agenttuning__": 0}, "agenttuning__: unknown key"),
        ({"agenttuning.eta.": 0}, "agenttuning.eta.: unknown key"),
        ({"agenttuning.eta": 0, "agenttuning__eta": 1}, "expected one of the two"),
        ({"agenttuning.evaluators.1.every": 2}, "found '1', expected a number below 1"),
        ({"agenttuning.general.path": "x"}, "found 'path', expected a number below 2"),
        ({"agenttuning.eta.deep": 2}, "found 0.2 where 'deep' should be a key of it"),
        ({"agenttuning__etta": 0}, "agenttuning.etta: unknown key, did you mean eta?"),
        ({"agenttuning__eta": 2}, "agenttuning.eta: found 2"),
    ],
)
def test_what_is_no_override_is_refused(keys: dict[str, Any], message: str) -> None:
    cfg = recipe(**keys)
    with pytest.raises(ConfigError) as error:  # noqa: PT012  # either may refuse it
        apply_overrides(cfg)
        check_recipe(cfg)
    assert message in str(error.value)


@pytest.mark.parametrize("flag", ["--agenttuning.eta", "--agenttuning__eta=0.1"])
def test_a_flag_that_axolotl_train_would_drop_is_refused(flag: str) -> None:
    command = ["/bin/axolotl", "train", "x.yaml", "--launcher", "python", flag, "0.1"]
    with pytest.raises(ConfigError, match=r"launch -m axolotl\.cli\.train RECIPE"):
        check_command_line(command)
    check_command_line(command[:-2])
    check_command_line(["/lib/axolotl/cli/train.py", "x.yaml", flag, "0.1"])
