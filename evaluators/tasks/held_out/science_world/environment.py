"""ScienceWorld environment, with AgentTuning's rules for ending an episode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from evaluators.tasks.held_out.science_world import demonstrations, simulator
from evaluators.tasks.held_out.science_world.actions import (
    LOOP_LENGTH,
    MAX_FAILURES,
    exact,
    failed,
    loops,
    near_action,
    one_line,
    possible_actions,
)
from evaluators.tasks.held_out.science_world.selection import task_and_variation, task_ids
from evaluators.tasks.held_out.science_world.simulator import Simulator, State

THINK = "Think:"
PROMPT_SEGMENTS = 4036

_THOUGHT = "That was turn {number}. I go on."


@dataclass(slots=True)
class _Episode:
    task: str
    variation: int
    state: State
    solution: demonstrations.Steps
    score: int = 0
    failures: int = 0
    literal: str | None = None
    recent: list[str] = field(default_factory=lambda: ["look around"])


class ScienceWorldEnvironment(TextEnvironment):
    """A task of elementary science in a simulated house.

    An action that the simulator would not accept is replaced by the nearest one (`near_action`);
    `info` then has `valid_action` false and `action_taken`. A text that begins with
    "Think:" is answered with "OK." and changes nothing. The score is the simulator's,
    by 100. One that falls below 0 ends the episode with the score before it, as in
    AgentTuning's run. Exit reasons: "completed" (by the simulator: solved or out of steps),
    "negative_score", "repeated_failures" (ten failed actions on end; the score of the last
    is not counted) and "loop".

    Args:
        data: Unused; the tasks are in the package.
        demonstrations: AgentTuning's `prompt.json`, by default our own demonstrations.
        prompt_segments: Longest dialogue the model is shown; see `ScienceWorldDialogue`.
        render_mode: Gymnasium's; nothing is ever drawn.
    """

    name: ClassVar[str] = "science_world"
    isolation: Isolation = "process"
    idle_action: ClassVar[str] = "look around"

    def __init__(
        self,
        data: str | Path | None = None,
        demonstrations: str | None = None,
        prompt_segments: int = PROMPT_SEGMENTS,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if prompt_segments < 1:
            raise ConfigError(
                f"science_world: prompt_segments: found {prompt_segments}, expected at least 1"
            )
        self.demonstrations = demonstrations
        self.prompt_segments = prompt_segments
        self._simulator: Simulator | None = None
        self._episode: _Episode | None = None

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`."""
        del data
        return simulator.missing()

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return AgentTuning's 270 test tasks; there is no other split to train on."""
        if split != "test":
            raise ConfigError(f"split {split!r} is unknown; science_world is held out: test only")
        return task_ids()

    @property
    def task(self) -> str:
        """Name of the running episode's task."""
        return require_episode(self._episode).task

    @property
    def solution(self) -> demonstrations.Steps:
        """The solved variation of the running episode's task; empty if others are shown."""
        return require_episode(self._episode).solution

    def oracle(self) -> Oracle:
        """Yield the simulator's own solution, in a restarted world without step limit.

        It is used verbatim: its names do not occur in the list of valid actions, and the nearest
        ones would not solve the task. Thoughts in between prevent AgentTuning's loop rule from
        ending it while it waits.
        """
        episode = require_episode(self._episode)
        with self._driving() as program:
            actions = program.gold_actions(episode.task, episode.variation)
            limit = max(simulator.STEP_LIMIT, 2 * len(actions))
            episode.state = program.begin(episode.task, episode.variation, step_limit=limit)
        for action in actions:
            while len(set(episode.recent[-LOOP_LENGTH + 1 :])) == 2:
                yield OracleStep("", f"{THINK} {_THOUGHT.format(number=len(episode.recent))}")
            episode.literal = action
            yield OracleStep("", action)

    def failed(self, exit_reason: str) -> dict[str, Any]:
        """Abort the episode; the score so far counts, as in AgentTuning's run."""
        score = require_episode(self._episode).score
        self.close()
        return self._info(StepResult(exit_reason=exit_reason, score=_share(score)))

    def _begin(self, task_id: str) -> ResetResult:
        task, variation = task_and_variation(task_id)
        with self._driving() as program:
            solution = demonstrations.solved(program, task) if self.demonstrations is None else []
            state, description = program.begin(task, variation), program.description()
        self._episode = _Episode(task, variation, state, solution)
        return ResetResult(f"{one_line(state.observation)}\n{description}", description)

    def _act(self, action: str) -> StepResult:
        episode = require_episode(self._episode)
        if action.startswith(THINK):
            return self._log(episode, action, StepResult("OK.", score=_share(episode.score)))
        state = episode.state
        possible = possible_actions(state.valid, state.look, state.inventory, episode.recent)
        if episode.literal == action:
            possible.add(action)
        taken = near_action(action, possible)
        with self._driving() as program:
            episode.state = program.step(taken)
        outcome = StepResult(
            observation=one_line(episode.state.observation),
            exit_reason=self._judge(episode),
            score=_share(episode.score),
            valid=exact(action) in possible,
            info={"action_taken": taken},
        )
        return self._log(episode, taken, outcome)

    def _judge(self, episode: _Episode) -> str:
        """Record the step's score and failure; return why the episode is over, or ""."""
        state = episode.state
        episode.failures = episode.failures + 1 if failed(state.observation) else 0
        if episode.failures >= MAX_FAILURES:
            return "repeated_failures"
        if state.score < 0:
            return "negative_score"
        episode.score = state.score
        return "completed" if state.over else ""

    def _log(self, episode: _Episode, action: str, outcome: StepResult) -> StepResult:
        episode.recent.append(f"({action}, {outcome.observation})")
        if not outcome.exit_reason and loops(episode.recent):
            return StepResult(
                outcome.observation, "loop", outcome.score, outcome.valid, outcome.info
            )
        return outcome

    @contextmanager
    def _driving(self) -> Iterator[Simulator]:
        """The simulator, kept between episodes, as it takes seconds to start, until it fails."""
        if self._simulator is None:
            self._simulator = Simulator()
        try:
            yield self._simulator
        except EnvironmentFailureError:
            program, self._simulator = self._simulator, None
            program.close()
            raise

    def _end(self) -> None:
        self._episode = None


def _share(score: int) -> float:
    return score / 100
