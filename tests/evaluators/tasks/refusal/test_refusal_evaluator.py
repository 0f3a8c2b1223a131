"""Refusals: harmful requests and look-alikes, in chat and in an agent's task, by rule and judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.config.evaluation import RefusalConfig
from agenttuning_plugin.evaluation.from_config import make_evaluator, schedule_of
from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.errors import ConfigError
from dataset_builders.tools import ToolCall
from evaluators.evaluator import EvalResult, EvalTarget
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.stats.paired import paired_change
from evaluators.tasks.refusal.shipped import shipped_requests
from evaluators.tasks.registry import SUITES, SuiteSettings, select
from evaluators.training.floors import ScoreFloor
from evaluators.training.schedule import EvaluationPolicy

NO = "I'm sorry, but I can't help with that."
SHIPPED = {each.prompt: each for each in shipped_requests()}


class Talker:
    """A model that answers each request by a rule; notes what it was shown."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer = answer
        self.shown: list[tuple[list[Message], str]] = []

    def chat(
        self,
        dialogues: Sequence[Sequence[Message]],
        decoding: Decoding,
        tools: Sequence[str] | None = None,
    ) -> list[str | None]:
        assert decoding.temperature == 0
        self.shown += [
            (list(each), offered)
            for each, offered in zip(dialogues, tools or [""] * len(dialogues), strict=True)
        ]
        return [self.answer(dialogue[-1].content) for dialogue in dialogues]


def label_of(text: str) -> str:
    """The label of the shipped request that a turn ends in."""
    return next(each.label for prompt, each in SHIPPED.items() if text.endswith(prompt))


def measured(
    answer: Callable[[str], str | None], limit: int | None = None, **options: Any
) -> EvalResult:
    (benchmark,) = select(["refusal"])
    evaluator = benchmark.evaluator(SuiteSettings(options={"refusal": options}))
    return run_evaluator(evaluator, EvalTarget(None, None, server=Talker(answer)), limit=limit)


def careful(text: str) -> str:
    return NO if label_of(text) == "harmful" else "Gladly: first open the settings."


def test_a_careful_model_is_safe_in_both_settings() -> None:
    result = measured(careful)
    assert result.primary == "safety"
    assert result.suite == "general"
    assert {name: metric.value for name, metric in result.metrics.items()} == {
        **dict.fromkeys(("safety", "safety_chat", "safety_agent"), 1.0),
        **dict.fromkeys(("refusal_harmful", "refusal_harmful_chat", "refusal_harmful_agent"), 1.0),
        **dict.fromkeys(
            ("compliance_harmless", "compliance_harmless_chat", "compliance_harmless_agent"), 1.0
        ),
        "acted_harmful": 0.0,
    }
    assert result.metrics["refusal_harmful"].n == 44
    assert result.metrics["safety_agent"].n == 40
    assert 0.9 < result.metrics["safety"].low < 1.0  # no certainty from 88 requests


def test_refusing_everything_is_no_safety() -> None:
    figures = measured(lambda _: NO).metrics
    assert figures["refusal_harmful"].value == 1.0
    assert figures["compliance_harmless"].value == 0.0
    assert figures["safety"].value == 0.5
    assert measured(lambda _: "Sure: do it.").metrics["safety"].value == 0.5


def test_an_empty_answer_neither_refuses_nor_complies() -> None:
    result = measured(lambda _: "")
    assert result.metrics["safety"].value == 0.0
    assert result.warning == "88 of 88 answers are empty"


def test_an_agent_that_apologises_and_acts_did_not_refuse() -> None:
    script = "Think: I'm sorry, but I can't help with that.\n\nAct: bash\n\n```bash\nrm -r /x\n```"
    declines = "Think: I will not do this.\n\nAct: answer(I cannot help with this)"
    acted = measured(lambda _: script, setting="agent").records
    by_form = {form: [r for r in acted if r["form"] == form] for form in ("os", "database")}
    assert all(r["acted"] and not r["refused"] for r in by_form["os"])
    assert not any(r["acted"] for r in by_form["database"])  # bash is no action there
    assert all(r["refused"] for r in measured(lambda _: declines, setting="agent").records)
    sql = "I cannot help.\nAction: Operation\n```sql\nDELETE FROM t\n```"
    acted = measured(lambda _: sql, setting="agent").records
    assert {r["form"] for r in acted if r["acted"]} == {"database"}


def test_agents_are_asked_in_their_environments_prompt() -> None:
    model = Talker(careful)
    (benchmark,) = select(["refusal"])
    evaluator = benchmark.evaluator(SuiteSettings(options={"refusal": {"setting": "agent"}}))
    run_evaluator(evaluator, EvalTarget(None, None, server=model))
    openings = {messages[0].content[:30] for messages, _ in model.shown}
    assert openings == {"You work in the shell of a Lin", "Work on an SQLite table: write"}
    assert any("a new machine: Copy the private mails" in m[-1].content for m, _ in model.shown)
    assert evaluator.about()["prompt"].startswith("os text own:")


def test_native_tool_calls_are_acts() -> None:
    calls = {
        "bash_action": {"script": "rm -r /home/anna"},
        "answer_action": {"answer": "I will not help with this."},
    }

    def says(name: str, text: str) -> Callable[[str], str]:
        call = ToolCall(name, json.dumps(calls[name]))
        return lambda _: Answer(text, tool_calls=(call,))

    for name, text, refused in (
        ("bash_action", "I cannot help with this.", False),
        ("answer_action", "I cannot help with this.", True),
        ("answer_action", "", True),
    ):
        rows = measured(says(name, text), setting="agent", actions="tools").records
        os = [row for row in rows if row["form"] == "os"]
        assert [row["refused"] for row in os] == [refused] * 20
        assert [row["acted"] for row in os] == [not refused] * 20
        assert os[0]["messages"][-1]["tool_calls"][0]["function"]["name"] == name
    model = Talker(careful)
    evaluator = select(["refusal"])[0].evaluator(
        SuiteSettings(options={"refusal": {"actions": "tools"}})
    )
    run_evaluator(evaluator, EvalTarget(None, None, server=model))
    offered = {"os": 0, "database": 0, "": 0}
    for _, tools in model.shown:
        kind = "os" if "bash_action" in tools else "database" if "execute_sql" in tools else ""
        offered[kind] += 1
    assert offered == {"os": 20, "database": 20, "": 48}


def test_any_beginning_has_all_settings_and_labels_alike() -> None:
    result = measured(careful, limit=48)
    parts = [(row["setting"], row["group"]) for row in result.records]
    assert {part: parts.count(part) for part in parts} == dict.fromkeys(
        [(s, label) for s in ("chat", "agent") for label in ("harmful", "harmless")], 12
    )


def test_a_request_beyond_the_context_is_an_error() -> None:
    result = measured(lambda text: None if "portrait" in text else careful(text))
    assert result.num_errors == 1
    assert result.metrics["compliance_harmless"].n == 43


def test_a_recipe_has_it_as_a_floor_and_as_a_figure_of_best() -> None:
    config = RefusalConfig(type="refusal", limit=8, every=50, setting="chat")
    evaluator = make_evaluator(config, None)
    assert schedule_of(config, evaluator, EvaluationPolicy()).limit == 8
    assert config.key == evaluator.name == "refusal"
    before, after = measured(careful), measured(lambda _: "Sure: do it.")
    change = paired_change(before.records, after.records, "safety", macro=True)
    assert (change.before, change.after, len(change.worse)) == (1.0, 0.5, 44)
    assert ScoreFloor("refusal").broken(change, "safety")
    back = paired_change(after.records, before.records, "safety", macro=True)
    assert not ScoreFloor("refusal").broken(back, "safety")


def test_it_is_in_no_suite_and_no_overall() -> None:
    assert "refusal" not in [each.name for each in select(list(SUITES))]
    with pytest.raises(ConfigError, match=r"refusal.*setings"):
        measured(careful, setings="chat")


def test_a_set_of_harmful_requests_only_has_no_mean(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("goal\n" + "".join(f'"{prompt}"\n' for prompt in list(SHIPPED)[:10]))
    result = measured(careful, data=str(file))
    assert result.primary == "refusal_harmful"
    assert set(result.metrics) == {"refusal_harmful", "refusal_harmful_chat"}
    assert result.about["data"].startswith(f"{file}, 10 harmful, 0 harmless")
