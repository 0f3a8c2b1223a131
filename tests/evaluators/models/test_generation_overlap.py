"""Environments work beside each other, and slow ones beside the next turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import ClassVar

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.base import OracleStep, ResetResult, StepResult, TextEnvironment
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.prompts import Prompt
from dataset_builders.rollouts.model_policies import BatchingPolicy
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import ScriptedPolicy

WAITING = 20.0
MEETING = threading.Barrier(3, timeout=WAITING)
SPOKEN = threading.Event()


class ScenesEnvironment(TextEnvironment):
    """Scene "meet" needs three at once; "late" goes on when the policy has spoken again."""

    name: ClassVar[str] = "scenes"
    idle_action: ClassVar[str] = "wait"
    isolation = "thread"  # one from elsewhere has processes by default

    def task_ids(self, split: str) -> tuple[str, ...]:
        return tuple(f"s-{split}-{scene}" for scene in ("meet", "late", "quick"))

    def _begin(self, task_id: str) -> ResetResult:
        self.scene, self.steps, self.thread = task_id.split("-")[2], 0, threading.get_ident()
        return ResetResult("begun", task_id)

    def _act(self, action: str) -> StepResult:
        assert threading.get_ident() == self.thread
        self.steps += 1
        if self.scene == "meet":
            MEETING.wait()
        if self.scene == "late" and self.steps == 1 and not SPOKEN.wait(WAITING):
            raise TimeoutError("the policy waited for this step")
        return StepResult(f"{self.steps}", exit_reason="done" if self.steps == 3 else "", score=1.0)


class ScenesDialogue(Dialogue):
    world: ClassVar[type[TextEnvironment]] = ScenesEnvironment
    agentinstruct_task: ClassVar[str] = "scenes"
    round_limit: ClassVar[int] = 6

    @classmethod
    def own_prompt(cls) -> Prompt:
        return Prompt("own", (Message("user", "Act."), Message("assistant", "Ok.")))

    def read(self, said: str) -> str | None:
        return said

    def write(self, move: OracleStep) -> str:
        return move.action


SCENES = EnvironmentSpec("scenes", place=f"{__name__}:ScenesDialogue")


class SlowPolicy:
    """Takes long enough to matter; says so when it speaks for the second time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> Sequence[str | None]:
        self.sizes.append(len(dialogues))
        if len(self.sizes) == 2:
            SPOKEN.set()
        time.sleep(0.15)
        return ["go"] * len(dialogues)


def test_environments_step_at_the_same_time() -> None:
    played = play(SCENES, ["s-test-meet"] * 3, ScriptedPolicy(["go"]), batch_size=3)
    assert [(t.exit_reason, t.num_rounds) for t in played] == [("done", 3)] * 3


def test_a_slow_environment_works_while_the_next_turns_are_written() -> None:
    policy = SlowPolicy()
    tasks = ["s-test-quick", "s-test-late", "s-test-quick"]
    played = play(SCENES, tasks, BatchingPolicy(policy.complete), batch_size=3)
    assert [(t.task_id, t.exit_reason, t.error) for t in played] == [
        (task, "done", "") for task in tasks
    ]
    assert policy.sizes[:2] == [3, 2]
    assert sum(policy.sizes) == 9
