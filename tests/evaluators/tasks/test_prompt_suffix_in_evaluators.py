"""`prompt_suffix` of the evaluators: what a model is shown, and the label of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dataset_builders.conversation import Message
from evaluators.evaluator import Record
from evaluators.models.target import EvalTarget
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.registry import SuiteSettings, select
from tests.support.own_environments import write_desk

SUFFIX = "The result must be correct."


class Listener(AgentTaskEvaluator):
    """Notes what a model would be shown first."""

    seen: Sequence[Message] = ()

    def answer_turns(self, subject: EvalTarget) -> Any:
        def answer(dialogues: Sequence[Sequence[Message]], *_: object) -> list[str]:
            self.seen = self.seen or dialogues[0]
            return ["nothing"] * len(dialogues)

        return answer


class Target:
    """As much of a model as the listener needs."""

    server = None


def played(suffix: str) -> tuple[Listener, Record]:
    listener = Listener("database", num_tasks=1)
    if suffix:
        listener.extend_prompt(suffix)
    records: list[Record] = []
    listener.measure(Target(), listener.items(), records.append)  # type: ignore[arg-type]
    return listener, records[0]


def test_the_prompt_ends_with_it() -> None:
    plain, record = played("")
    listener, other = played(SUFFIX)
    assert listener.seen[0].content == f"{plain.seen[0].content}\n\n{SUFFIX}"
    assert listener.seen[1:] == plain.seen[1:]
    assert record["prompt"] != other["prompt"]
    assert plain.about()["prompt"] != listener.about()["prompt"]


@pytest.mark.parametrize("name", ["database", "own", "card_game"])
def test_every_agent_task_of_a_suite_takes_it(name: str, tmp_path: Any) -> None:
    place = write_desk(tmp_path) if name == "own" else name
    (benchmark,) = select([place])
    labels = {
        benchmark.evaluator(SuiteSettings(prompt_suffix=suffix)).about()["prompt"]
        for suffix in ("", SUFFIX)
    }
    assert len(labels) == 2


def test_a_recipe_names_it() -> None:
    from agenttuning_plugin.config.evaluation import AgentTaskConfig

    config = AgentTaskConfig(type="agent_task", prompt_suffix=SUFFIX)
    assert config.spec().wording().suffix == SUFFIX
