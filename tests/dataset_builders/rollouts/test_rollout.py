from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Message
from dataset_builders.endpoints.reply import CONTEXT_FULL
from dataset_builders.environments import HELD_IN, EnvironmentSpec, load_environment
from dataset_builders.environments.base import (
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.dialogue import ROUND_LIMIT, Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.errors import ConfigError, MissingExtraError
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Trajectory
from dataset_builders.rollouts.model_policies import BatchingPolicy
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy

COUNTDOWN = EnvironmentSpec("countdown")
DATABASE = load_environment("database")


def numbered(*tasks: str) -> list[str]:
    return [f"n-train-{task}" for task in tasks]


class CountdownEnvironment(TextEnvironment):
    """Task "n" ends after n turns; letters in the identifier make it break somewhere."""

    name: ClassVar[str] = "countdown"
    idle_action: ClassVar[str] = "wait"
    made: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.left, self.dropped = 0, False

    def task_ids(self, split: str) -> tuple[str, ...]:
        del split
        return ("n-train-1", "n-train-2", "n-train-3", "n-train-4")

    def oracle(self) -> Oracle:
        if "no-oracle" in self._task_id:
            raise KeyError("no oracle")
        for _ in range(1 if "short" in self._task_id else self.left):
            yield OracleStep("", "down")

    def failed(self, exit_reason: str) -> dict[str, Any]:
        gained = 0.25 if "partial" in self._task_id else 0.0
        return super().failed(exit_reason) | {"score": gained}

    def _begin(self, task_id: str) -> ResetResult:
        if "config" in task_id:
            raise ConfigError("no such task")
        if "extra" in task_id:
            raise MissingExtraError("pip install something")
        if "reset" in task_id:
            raise OSError("the game did not start")
        self.left = int(task_id.split("-")[2])
        return ResetResult(f"{self.left} left", task_id)

    def _act(self, action: str) -> StepResult:
        if "step" in self._task_id:
            raise ZeroDivisionError("the game crashed")
        self.left -= action == "down"
        if self.left == 0:
            return StepResult(exit_reason="counted", score=1.0)
        return StepResult(f"{self.left} left", valid=action == "down")


class CountdownDialogue(Dialogue):
    """Turns are actions."""

    world: ClassVar[type[TextEnvironment]] = CountdownEnvironment
    agentinstruct_task: ClassVar[str] = "countdown"
    round_limit: ClassVar[int] = 6
    max_new_tokens: ClassVar[int] = 8

    def __init__(self, env: TextEnvironment, prompt: Prompt) -> None:
        super().__init__(env, prompt)
        CountdownEnvironment.made += 1

    @classmethod
    def own_prompt(cls) -> Prompt:
        return Prompt("own", (Message("user", "Count."), Message("assistant", "Ok.")))

    def parse(self, turn: str) -> str | None:
        return turn

    def write(self, move: OracleStep) -> str:
        return move.action

    def close(self) -> None:
        if "slow" in self.env._task_id:
            time.sleep(0.5)
        CountdownEnvironment.closed += 1
        super().close()
        if "close" in self.env._task_id:
            raise OSError("the game did not stop")


@pytest.fixture(autouse=True)
def countdown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name the environment, and see that every object made is closed."""
    monkeypatch.setitem(HELD_IN, "countdown", f"{__name__}:CountdownDialogue")
    CountdownEnvironment.made = CountdownEnvironment.closed = 0
    yield
    assert CountdownEnvironment.made == CountdownEnvironment.closed


class RecordingPolicy:
    """Says "down" and notes how many dialogues it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> Sequence[str | None]:
        assert max_new_tokens == 8
        assert all(dialogue[-1].role == "user" for dialogue in dialogues)
        self.sizes.append(len(dialogues))
        return ["down"] * len(dialogues)


def recording() -> BatchingPolicy:
    return BatchingPolicy(RecordingPolicy().complete)


def test_a_trajectory_holds_the_dialogue() -> None:
    (trajectory,) = play(COUNTDOWN, numbered("2"), ScriptedPolicy(["up", "down", "down"]))
    assert trajectory == Trajectory(
        task_id="n-train-2",
        environment="countdown",
        split="train",
        messages=(
            Message("user", "Count."),
            Message("assistant", "Ok."),
            Message("user", "2 left"),
            Message("assistant", "up", trained=True),
            Message("user", "2 left"),
            Message("assistant", "down", trained=True),
            Message("user", "1 left"),
            Message("assistant", "down", trained=True),
        ),
        reward=1.0,
        exit_reason="counted",
        num_rounds=3,
        valid_rounds=2,
        success=True,
        prompt=COUNTDOWN.wording().label,
    )


def test_a_finished_episode_is_replaced_at_once() -> None:
    policy = RecordingPolicy()
    finished: list[str] = []
    tasks = numbered("4", "1", "1", "1", "1")
    played = play(
        COUNTDOWN,
        tasks,
        BatchingPolicy(policy.complete),
        batch_size=2,
        on_progress=lambda trajectory: finished.append(trajectory.task_id),
    )
    assert policy.sizes == [2, 2, 2, 2]
    assert [trajectory.task_id for trajectory in played] == tasks
    assert Counter(finished) == Counter(tasks)
    assert finished[0] == "n-train-1"
    assert CountdownEnvironment.made == 2


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.sampled_from(["1", "2", "3", "5", "1-reset", "2-step", "3-close", "9"]), max_size=9
    ),
    st.lists(st.sampled_from(["down", "up", None]), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_a_batch_plays_as_one_by_one(
    tasks: list[str], replies: list[str | None], batch_size: int
) -> None:
    policy = ScriptedPolicy(replies)
    together = play(COUNTDOWN, numbered(*tasks), policy, batch_size=batch_size)
    assert together == [play(COUNTDOWN, numbered(task), policy)[0] for task in tasks]
    for trajectory in together:
        own = [message for message in trajectory.messages if message.trained]
        assert len(own) == trajectory.num_rounds >= trajectory.valid_rounds
        assert trajectory.exit_reason


def test_database_in_a_batch_equals_one_by_one() -> None:
    tasks = DATABASE.task_ids("train")[:20]
    select = "Hm.\nAction: Operation\n```sql\nSELECT 1\n```"
    policy = ScriptedPolicy([select, "Action: Answer\nFinal Answer: [1]"])
    alone = [play(DATABASE, [task], policy)[0] for task in tasks]
    assert play(DATABASE, tasks, policy, batch_size=7) == alone


@pytest.mark.parametrize(
    ("task", "error", "num_rounds"),
    [
        ("2-reset", "OSError: the game did not start", 0),
        ("2-step", "ZeroDivisionError: the game crashed", 1),
    ],
)
def test_a_broken_environment_ends_only_its_episode(task: str, error: str, num_rounds: int) -> None:
    played = play(
        COUNTDOWN,
        numbered("1", task, "3", "2"),
        recording(),
        batch_size=2,
    )
    assert [t.exit_reason for t in played] == ["counted", ENVIRONMENT_ERROR, "counted", "counted"]
    assert (played[1].error, played[1].num_rounds) == (error, num_rounds)
    assert played[1].reward == 0.0
    assert all(not t.error for t in played if t is not played[1])


def test_an_environment_that_does_not_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    (trajectory,) = play(COUNTDOWN, numbered("1-close"), recording())
    assert trajectory.reward == 1.0
    assert "countdown failed to close" in caplog.text


@pytest.mark.parametrize(("task", "error"), [("config", ConfigError), ("extra", MissingExtraError)])
def test_what_the_user_must_mend_is_raised(task: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        play(COUNTDOWN, numbered("3", task), recording())


class BrokenPolicy:
    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> Sequence[str | None]:
        raise RuntimeError("out of memory")


class ForgetfulPolicy:
    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> Sequence[str | None]:
        return []


def test_errors_of_the_policy_propagate() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        play(COUNTDOWN, numbered("1", "2"), BatchingPolicy(BrokenPolicy().complete))
    with pytest.raises(ValueError, match="0 turns for 2 dialogues"):
        play(COUNTDOWN, numbered("1", "2"), BatchingPolicy(ForgetfulPolicy().complete))


def test_a_cancelled_episode_is_closed_when_it_returns() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        play(COUNTDOWN, numbered("1", "2-slow"), BatchingPolicy(BrokenPolicy().complete))
    # What the fixture asserts at the end, at once.
    assert CountdownEnvironment.closed == CountdownEnvironment.made == 2


def test_none_ends_the_episode_as_context_full() -> None:
    (trajectory,) = play(COUNTDOWN, numbered("3"), ScriptedPolicy(["down", None]))
    assert (trajectory.exit_reason, trajectory.reward) == (CONTEXT_FULL, 0.0)
    assert trajectory.num_rounds == 1


def test_what_was_reached_counts_where_the_context_is_full() -> None:
    (trajectory,) = play(COUNTDOWN, numbered("3-partial"), ScriptedPolicy(["down", None]))
    assert (trajectory.exit_reason, trajectory.reward) == (CONTEXT_FULL, 0.25)
    assert not trajectory.success


def test_an_environment_that_never_ends_is_stopped_at_its_limit() -> None:
    (trajectory,) = play(COUNTDOWN, numbered("9"), recording())
    assert (trajectory.exit_reason, trajectory.num_rounds) == (ROUND_LIMIT, 6)
    assert trajectory.messages[-1].role == "assistant"


def test_no_tasks_make_no_trajectories() -> None:
    assert play(COUNTDOWN, [], BatchingPolicy(BrokenPolicy().complete)) == []


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="batch_size: found 0"):
        play(COUNTDOWN, numbered("1"), recording(), batch_size=0)


def test_the_oracle_plays_through_the_same_path() -> None:
    played = play(DATABASE, DATABASE.task_ids("test"), OraclePolicy())
    assert all(t.reward == 1.0 for t in played)
    assert all((t.num_rounds, t.valid_rounds, t.split) == (2, 2, "test") for t in played)
    assert [t.task_id for t in played] == list(DATABASE.task_ids("test"))


def test_a_failing_oracle_ends_only_its_episode() -> None:
    played = play(COUNTDOWN, numbered("1", "2-no-oracle", "3-short", "1"), OraclePolicy())
    reasons = ["counted", ENVIRONMENT_ERROR, ENVIRONMENT_ERROR, "counted"]
    assert [t.exit_reason for t in played] == reasons
    assert "KeyError" in played[1].error
    assert "the oracle's 1 turns end no episode" in played[2].error
