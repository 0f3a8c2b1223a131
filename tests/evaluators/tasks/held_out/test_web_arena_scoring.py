"""WebArena: its scorers of answers and addresses, on all 812 tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import EnvironmentFailureError
from evaluators.tasks.held_out.web_arena.fuzzy import JudgedSame
from evaluators.tasks.held_out.web_arena.scoring import string_score, url_score
from evaluators.tasks.held_out.web_arena.tasks import Task, find_tasks, read_tasks
from tests.support.endpoint import Endpoint, serving

SITE = "http://shop.test"


def same(answer: str, right: str, intent: str) -> bool:
    """A judge that knows no other words for anything."""
    del intent
    return answer == right.lower()


def right_answer(task: Task) -> str:
    told: list[str] = []
    for right in task.answers.values():
        told += [right] if isinstance(right, str) else right
    return " ".join(told)


def test_the_string_scorer_on_all_812_tasks(shared: Path) -> None:
    tasks = read_tasks(find_tasks(shared / "data/webarena"))
    kinds = Counter(kind for task in tasks.values() for kind in task.kinds)
    # Of the current file; AgentTuning's older copy has 332, 207 and 412.
    assert (len(tasks), dict(kinds)) == (
        812,
        {"string_match": 335, "url_match": 205, "program_html": 411},
    )
    strings = [task for task in tasks.values() if "string_match" in task.kinds]
    assert len(strings) == 335
    for task in strings:
        answer = right_answer(task)
        if len(task.answers) > 1 or (
            len(task.answers.get("fuzzy_match", "")) > 1 and task.needs_judge
        ):
            # Of several phrases the judge is asked for each: any that is in the answer is right.
            def judge(told: str, right: str, intent: str) -> bool:
                return right.lower() in told
        else:
            judge = same
        assert string_score(task, answer, judge) == 1.0, task
        assert string_score(task, f"'{answer.upper()}' ".strip(), judge) == 1.0, task
        assert string_score(task, "a wrong answer, surely", judge) == 0.0, task
        assert string_score(task, "", judge) == 0.0, task
        if not task.needs_judge:
            assert string_score(task, answer, None) == 1.0
    assert sum(task.needs_judge for task in strings) == 82
    assert sum(task.answers.get("fuzzy_match") == "N/A" for task in strings) == 36


def task_of(**answers: Any) -> Task:
    return Task(1, "do it", ("shopping",), ("string_match",), answers, "", "it is sold out")


def test_rules_of_comparing_strings() -> None:
    assert string_score(task_of(exact_match="Blue"), " 'blue' ", None) == 1.0
    assert string_score(task_of(exact_match="Blue"), "blue kettle", None) == 0.0
    assert string_score(task_of(must_include=["a", "b"]), "b and a", None) == 1.0
    # A single character has to be a word of its own.
    assert string_score(task_of(must_include=["0"]), "There are 0 of 10.", None) == 1.0
    assert string_score(task_of(must_include=["0"]), "There are 10, or 0.5.", None) == 0.0
    assert string_score(task_of(must_include=["10"]), "110", None) == 1.0
    assert string_score(task_of(fuzzy_match="N/A"), "n/a", None) == 1.0
    assert string_score(task_of(fuzzy_match="N/A"), "It is sold out", None) == 0.0
    assert string_score(task_of(fuzzy_match="N/A"), "It is sold out", same) == 1.0
    with pytest.raises(EnvironmentFailureError, match="needs a judge"):
        string_score(task_of(fuzzy_match=["3 h"]), "three hours", None)


def test_rules_of_comparing_addresses() -> None:
    url = "__SHOP__/a/b?x=1&y=2 |OR| __SHOP__/c"
    task = Task(1, "", (), ("url_match",), {}, url, "")
    sites = {"__SHOP__": f"{SITE}/"}
    assert url_score(task, f"{SITE}/a/b/?y=2&x=1&z=3", sites) == 1.0
    assert url_score(task, f"{SITE}/c?x=1&y=2", sites) == 1.0
    assert url_score(task, f"{SITE}/a/b?x=1", sites) == 0.0
    assert url_score(task, "http://other.test/a/b?x=1&y=2", sites) == 0.0


def test_a_judge_says_yes_no_or_nothing_of_use() -> None:
    pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

    def verdict(messages: list[dict[str, Any]]) -> str:
        text = messages[-1]["content"]
        return next(said for said in ("INCORRECT", "Correct.", "Hm.") if f"[{said}]" in text)

    with serving(Endpoint(verdict)) as server:
        judged = JudgedSame({"base_url": server.url, "model": "j"})
        assert judged("[Correct.]", "3 h", "how long?") is True
        assert judged("[INCORRECT]", "3 h", "how long?") is False
        with pytest.raises(EnvironmentFailureError, match="neither CORRECT nor INCORRECT"):
            judged("[Hm.]", "3 h", "how long?")
