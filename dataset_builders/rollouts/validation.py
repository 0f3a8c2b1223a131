"""Validate an environment without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dataset_builders.conversation import Message
from dataset_builders.endpoints.reply import Reply
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.base import OracleStep
from dataset_builders.rollouts.episode import ENVIRONMENT_ERROR, Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, Policy, ScriptedPolicy, TurnRequest

_LONG = 190
"""Sentences of a long turn; two and a half such turns fill the history limit (`MAX_SEGMENTS`)."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Result of a validation.

    Attributes:
        environment: Its name.
        split: The split.
        oracle: Mean reward of the oracle.
        idle: Mean reward of an agent whose actions are valid but have no effect.
        num_tasks: Tasks that each of them played.
        failures: Tasks the oracle did not solve, and how they ended; tasks in which the model
            is shown a dialogue that nothing can be answered to.
    """

    environment: str
    split: str
    oracle: float
    idle: float
    num_tasks: int
    failures: dict[str, str]

    @property
    def ok(self) -> bool:
        """Whether the oracle always scored 1, the idle agent always 0, and nothing failed."""
        return self.oracle == 1.0 and self.idle == 0.0 and not self.failures


def validate(
    environment: EnvironmentSpec,
    *,
    split: str = "train",
    num_tasks: int = 10,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> Validation:
    """Play with the oracle, and with an idle agent.

    The idle agent sees what a model would be shown, in short turns on every task, and once in
    turns so long that the dialogue no longer fits and old turns are left out.

    Args:
        environment: The environment.
        split: Split to play.
        num_tasks: Tasks to play, spread evenly over the split; all of a smaller one.
        on_progress: Called with every finished trajectory of either.

    Raises:
        ConfigError: The split is unknown.
        SourceNotFoundError: The environment's data is not there.
        MissingExtraError: The environment needs an optional dependency.
    """
    tasks = _spread(environment.task_ids(split), num_tasks)
    solved = play(environment, tasks, OraclePolicy(), batch_size=1, on_progress=on_progress)
    idler, talker = (
        _Watching(ScriptedPolicy([_idle_turn(environment, thought)]))
        for thought in ("I do nothing.", "I do nothing, and say so. " * _LONG)
    )

    def ended(trajectory: Trajectory) -> None:
        idler.ended(trajectory)
        if on_progress is not None:
            on_progress(trajectory)

    idled = play(environment, tasks, idler, batch_size=1, on_progress=ended)
    idled += play(environment, tasks[:1], talker, batch_size=1, on_progress=talker.ended)
    broke = [t for t in idled if t.exit_reason == ENVIRONMENT_ERROR]
    return Validation(
        environment=environment.name,
        split=split,
        oracle=fmean(trajectory.reward for trajectory in solved),
        idle=fmean(trajectory.reward for trajectory in idled),
        num_tasks=len(tasks),
        failures={t.task_id: t.error or t.exit_reason for t in solved if t.reward < 1}
        | {t.task_id: f"idle agent: {t.error}" for t in broke}
        | idler.faults
        | {task: f"in a long dialogue: {fault}" for task, fault in talker.faults.items()},
    )


class _Watching(Policy):
    """Wraps a policy and checks the dialogues it is shown."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._fault = ""
        self.faults: dict[str, str] = {}

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        self._fault = self._fault or _fault(request.messages)
        return await self._policy.next_turn(request)

    def ended(self, trajectory: Trajectory) -> None:
        """Record the fault, if any, of the episode that has just ended."""
        if self._fault:
            self.faults[trajectory.task_id] = self._fault
        self._fault = ""


def _fault(shown: Sequence[Message]) -> str:
    roles = [message.role for message in shown]
    if "user" not in roles:
        return "the model is shown no user message"
    if roles[-1] not in ("user", "tool"):
        return f"the model is shown a dialogue that ends with a message of role {roles[-1]}"
    return ""


def _idle_turn(environment: EnvironmentSpec, thought: str) -> str:
    dialogue = environment.make()
    try:
        return dialogue.write(OracleStep(thought, dialogue.world.idle_action))
    finally:
        dialogue.close()


def _spread(tasks: tuple[str, ...], number: int) -> list[str]:
    number = min(number, len(tasks))
    return [tasks[index * len(tasks) // number] for index in range(number)]
