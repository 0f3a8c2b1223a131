"""Playing text environments: one chat policy, many episodes side by side.

Collection, evaluation and the oracle all take this one path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from dataset_builders.conversation import Message
from dataset_builders.environments.base import TextEnvironment
from dataset_builders.errors import ConfigError, EnvironmentFailureError, MissingExtraError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

ENVIRONMENT_ERROR = "environment_error"
CONTEXT_FULL = "context_full"
ROUND_LIMIT = "round_limit"


class ChatPolicy(Protocol):
    """Whatever continues dialogues: a model in training, a server, a script."""

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Sequence[str | None]:
        """Write the next assistant turn of every dialogue.

        Args:
            dialogues: At least one dialogue, each ending in a user turn.
            max_new_tokens: Tokens a turn may have.

        Returns:
            One turn per dialogue, in their order; None where the dialogue has grown
            past what the policy can read, which ends its episode.
        """


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that says fixed turns, whatever the dialogue; for tests and baselines.

    Attributes:
        replies: Turns of an episode, said in order and then from the start again; which
            one is due is counted in the dialogue, so episodes do not disturb each other.
    """

    replies: Sequence[str | None]

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Sequence[str | None]:
        """Return the turn that is due in every dialogue."""
        del max_new_tokens
        # Trained turns are the policy's own; the opening's assistant turns are not.
        said = (sum(message.trained for message in dialogue) for dialogue in dialogues)
        return [self.replies[count % len(self.replies)] for count in said]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A played episode.

    Attributes:
        task_id: The task.
        environment: Name of the environment.
        split: Split of the task, or "" if the environment broke before telling it.
        messages: All turns; exactly the policy's own are trained. The environment's
            reaction to the last action is left out, as in AgentInstruct.
        reward: The benchmark's score in [0, 1].
        exit_reason: The environment's, such as "answered" or "bad_format", or one of
            "context_full", "round_limit" and "environment_error".
        num_rounds: Turns that the policy took.
        valid_rounds: Those whose action could be parsed.
        error: What broke, where the exit reason is "environment_error".
    """

    task_id: str
    environment: str
    split: str
    messages: tuple[Message, ...]
    reward: float
    exit_reason: str
    num_rounds: int
    valid_rounds: int
    error: str = ""


@dataclass(slots=True, eq=False)
class _Episode:
    """An episode in play; `environment` is None once it has been given back."""

    index: int
    task_id: str
    environment: TextEnvironment | None = None
    split: str = ""
    messages: list[Message] = field(default_factory=list)
    reward: float = 0.0
    exit_reason: str = ""
    num_rounds: int = 0
    valid_rounds: int = 0
    error: str = ""

    def start(self, environment: TextEnvironment) -> None:
        self.environment = environment
        observation, info = environment.reset(options={"task_id": self.task_id})
        self.split = str(info["split"])
        self.messages = [*environment.opening(), Message("user", observation)]

    def act(self, reply: str | None) -> None:
        if self.environment is None or reply is None:
            self.exit_reason = CONTEXT_FULL
            return
        self.messages.append(Message("assistant", reply, trained=True))
        self.num_rounds += 1
        observation, reward, terminated, truncated, info = self.environment.step(reply)
        self.valid_rounds += bool(info["valid_format"])
        if terminated or truncated:
            self.reward = float(reward)
            self.exit_reason = str(info["exit_reason"])
        elif self.num_rounds >= self.environment.round_limit:
            self.exit_reason = ROUND_LIMIT
        else:
            self.messages.append(Message("user", observation))

    def oracle_turn(self) -> str:
        turns = self.environment.oracle() if self.environment else ()
        if self.num_rounds >= len(turns):
            raise EnvironmentFailureError(f"the oracle's {len(turns)} turns end no episode")
        return turns[self.num_rounds]

    def shield(self, call: Callable[..., _T], *arguments: object) -> _T | None:
        """Run the environment's code; if it breaks, only this episode ends.

        An environment is a foreign program (a game, a browser, a server), and one that
        breaks after an hour must not cost the other episodes. What the user has to mend
        would break every episode alike, so it is raised.
        """
        try:
            return call(*arguments)
        except (ConfigError, MissingExtraError):
            raise
        except Exception as error:
            self.exit_reason, self.reward = ENVIRONMENT_ERROR, 0.0
            self.error = f"{type(error).__name__}: {error}"
            return None

    def trajectory(self, environment: str) -> Trajectory:
        return Trajectory(
            task_id=self.task_id,
            environment=environment,
            split=self.split,
            messages=tuple(self.messages),
            reward=self.reward,
            exit_reason=self.exit_reason,
            num_rounds=self.num_rounds,
            valid_rounds=self.valid_rounds,
            error=self.error,
        )


_Respond = Callable[[Sequence[_Episode]], Sequence[str | None]]


class _Table:
    """Episodes in play, and environments kept for the next ones: some start slowly."""

    def __init__(self, environment: type[TextEnvironment]) -> None:
        self._class = environment
        self._idle: list[TextEnvironment] = []
        self.active: list[_Episode] = []

    def seat(self, episode: _Episode) -> None:
        self.active.append(episode)
        episode.shield(self._start, episode)

    def _start(self, episode: _Episode) -> None:
        episode.start(self._idle.pop() if self._idle else self._class())

    def leave(self, episode: _Episode) -> None:
        """Take the environment back; one that broke is not trusted with another task."""
        self.active.remove(episode)
        environment, episode.environment = episode.environment, None
        if environment is None:
            return
        if episode.exit_reason == ENVIRONMENT_ERROR:
            _close(environment)
        else:
            self._idle.append(environment)

    def close(self) -> None:
        for environment in [*self._idle, *(episode.environment for episode in self.active)]:
            if environment is not None:
                _close(environment)


def _close(environment: TextEnvironment) -> None:
    try:
        environment.close()
    except Exception:
        # Part of the boundary above: the episode is over, its result stands.
        _log.warning("environment %s did not close", environment.name, exc_info=True)


def _run(
    environment: type[TextEnvironment],
    task_ids: Iterable[str],
    respond: _Respond,
    batch_size: int,
    on_progress: Callable[[Trajectory], None] | None,
) -> list[Trajectory]:
    if batch_size < 1:
        raise ConfigError(f"batch_size: found {batch_size}, expected at least 1")
    waiting = [_Episode(index, task_id) for index, task_id in enumerate(task_ids)]
    waiting.reverse()
    results: dict[int, Trajectory] = {}
    table = _Table(environment)
    try:
        while waiting or table.active:
            while waiting and len(table.active) < batch_size:
                table.seat(waiting.pop())
            playing = [episode for episode in table.active if not episode.exit_reason]
            replies = respond(playing) if playing else ()
            for episode, reply in zip(playing, replies, strict=True):
                if not episode.exit_reason:  # The oracle itself may have broken.
                    episode.shield(episode.act, reply)
            for episode in [episode for episode in table.active if episode.exit_reason]:
                table.leave(episode)
                trajectory = results[episode.index] = episode.trajectory(environment.name)
                if on_progress is not None:
                    on_progress(trajectory)
    finally:
        table.close()
    return [results[index] for index in sorted(results)]


def play(
    environment: type[TextEnvironment],
    task_ids: Iterable[str],
    policy: ChatPolicy,
    *,
    batch_size: int = 16,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let a policy play tasks.

    Episodes run in lockstep: one call of the policy continues all of them, and a
    finished one is replaced at once by the next task.

    Args:
        environment: The environment's class; up to `batch_size` objects are made of
            it, and all are closed in the end.
        task_ids: The tasks.
        policy: What acts.
        batch_size: Episodes in play at a time.
        on_progress: Called with every trajectory, as soon as it is finished.

    Returns:
        One trajectory per task, in the order of `task_ids`. An exception of the
        environment ends only its own episode, with exit reason "environment_error" and
        reward 0.

    Raises:
        ConfigError: A task is unknown, or the batch size is less than 1.
        MissingExtraError: The environment needs an optional dependency.
        ValueError: The policy returned another number of turns than of dialogues.
        Exception: Whatever else the policy or `on_progress` raises.
    """

    def respond(episodes: Sequence[_Episode]) -> Sequence[str | None]:
        dialogues = [tuple(episode.messages) for episode in episodes]
        turns = policy.complete(dialogues, environment.max_new_tokens)
        if len(turns) != len(dialogues):
            raise ValueError(f"policy: {len(turns)} turns for {len(dialogues)} dialogues")
        return turns

    return _run(environment, task_ids, respond, batch_size, on_progress)


def play_oracle(
    environment: type[TextEnvironment],
    task_ids: Iterable[str],
    *,
    batch_size: int = 16,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Let the environment's own oracle play tasks, through the path that `play` takes.

    Arguments, result and errors are those of `play`, without a policy.
    """

    def respond(episodes: Sequence[_Episode]) -> Sequence[str | None]:
        return [episode.shield(episode.oracle_turn) for episode in episodes]

    return _run(environment, task_ids, respond, batch_size, on_progress)
