"""Collections that a model in this process plays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dataset_builders.collection.collector import run
from dataset_builders.collection.engine import LocalPlayer, RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.conversation import Message
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.model_policies import AnswerTurns, AttemptPolicy
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy

DATABASE = load_environment("database")
OPENING = len(DATABASE.wording().opening)


class Solver:
    """Answers like the oracle from an attempt on, and before that with what cannot be parsed."""

    def __init__(self, tasks: Sequence[str], solves_at: int) -> None:
        played = play(DATABASE, tasks, OraclePolicy())
        self.turns = {
            each.messages[OPENING].content: [m.content for m in each.messages if m.trained]
            for each in played
        }
        self.solves_at, self.asked = solves_at, list[tuple[int, int]]()

    def __call__(self, attempt: int) -> AnswerTurns:
        def answer(
            dialogues: Sequence[Sequence[Message]], most: int, tools: Sequence[str]
        ) -> list[str | None]:
            self.asked.append((attempt, len(dialogues)))
            return [self._turn(dialogue, attempt) for dialogue in dialogues]

        return answer

    def _turn(self, dialogue: Sequence[Message], attempt: int) -> str:
        said = sum(message.role == "assistant" for message in dialogue[OPENING:])
        return self.turns[dialogue[OPENING].content][said] if attempt >= self.solves_at else "hm"


def config(out: Path, solver: Solver, attempts: int = 3) -> CollectConfig:
    local = LocalPlayer("mine", AttemptPolicy(solver))
    rollout = RolloutConfig(DATABASE, local=local, attempts=attempts, max_concurrency=4)
    return CollectConfig(rollout, out, num_tasks=6)


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    return CollectConfig(RolloutConfig(DATABASE), tmp_path, num_tasks=6).chosen()


def test_each_attempt_is_answered_by_its_own_sampler(tmp_path: Path, tasks: list[str]) -> None:
    solver = Solver(tasks, solves_at=1)
    report = run(config(tmp_path / "out", solver))
    assert (report["tasks"], report["kept"], report["attempts"]) == (6, 6, 12)
    assert report["model"] == "mine"
    assert {attempt for attempt, _ in solver.asked} == {0, 1}
    assert max(size for _, size in solver.asked) > 1  # in batches
    assert (tmp_path / "out/jsonl/db.jsonl").read_text("utf-8").count("\n") == 6


def test_a_finished_collection_asks_for_nothing_again(tmp_path: Path, tasks: list[str]) -> None:
    run(config(tmp_path / "out", Solver(tasks, solves_at=0)))
    again = Solver(tasks, solves_at=0)
    assert run(config(tmp_path / "out", again))["kept"] == 6
    assert not again.asked


def test_sampling_is_part_of_what_the_data_depend_on(tmp_path: Path, tasks: list[str]) -> None:
    first = config(tmp_path / "out", Solver(tasks, solves_at=0))
    run(first)
    other = replace(first, play=replace(first.play, sampling=Sampling(temperature=0.5)))
    with pytest.raises(ConfigError, match=r"sampling's temperature: .*started with None"):
        run(other)


def test_a_local_model_and_an_endpoint_exclude_each_other(tmp_path: Path, tasks: list[str]) -> None:
    pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")
    first = config(tmp_path / "out", Solver(tasks, solves_at=0))
    both = replace(first.play, endpoint=Endpoint("m", "http://127.0.0.1:9/v1"))
    with pytest.raises(ConfigError, match="a local model: found an endpoint too"):
        replace(first, play=both).check()
