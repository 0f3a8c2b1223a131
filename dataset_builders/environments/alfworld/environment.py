"""ALFWorld's text games as an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from gymnasium.error import ResetNeeded

from dataset_builders.environments.alfworld.engine import GameEngine, missing_packages
from dataset_builders.environments.alfworld.games import (
    DATA_NAMES,
    NAME,
    SPLITS,
    Game,
    Games,
    game_key,
    open_games,
    split_paths,
)
from dataset_builders.environments.alfworld.goals import read_goal
from dataset_builders.environments.alfworld.habits import Habits
from dataset_builders.environments.alfworld.matching import shown_observation
from dataset_builders.environments.alfworld.rule_oracle import RuleOracle
from dataset_builders.environments.alfworld.search_oracle import SearchOracle
from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.errors import AgentTuningError, ConfigError

COMPLETED = "completed"
OLD_COMMAND = "put {o} in/on {r}"
"""Command of the games of AgentBench's time, as their grammar states it."""
_TASK = "Your task is to: "
_MAX_ROOMS = 200
"""Number of training games for the location statistics: more take long to read and add little."""


class AlfworldEnvironment(TextEnvironment):
    """Household tasks in rooms described in words, such as "put a hot mug in cabinet.".

    An action is a command of the game, such as "go to desk 1"; any other text changes
    nothing, returns "Nothing happens." and counts as invalid. The score is 1 once the
    goal is reached. In addition to the base class, `info` has
    `admissible_actions`, the commands that the game accepts now, and `kind`, one of
    ALFWorld's six task types. Exit reason: "completed".

    Splits: "test" and "dev" are AgentBench's 50 and 20 games; "train" is ALFWorld's
    training folder, or `valid_train` if only that is available.

    Args:
        data: Folder of the games; see `games.open_games`.
        oracle: "search" for one that uses only what it has seen, "rule" for one that reads
            the game's facts.
        demonstration: Whether the dialogue shows a solved game of the same kind first, as
            AgentBench does when it evaluates; AgentInstruct's rows have none.
        demonstrations: File of demonstrations as AgentBench publishes them; without it the
            search oracle plays one in a training game.
        render_mode: Gymnasium's; nothing is ever drawn.

    Raises:
        ConfigError: `oracle` is neither.
    """

    name: ClassVar[str] = NAME
    isolation: Isolation = "process"
    data_names: ClassVar[tuple[str, ...]] = DATA_NAMES
    idle_action: ClassVar[str] = "look"

    def __init__(
        self,
        data: str | Path | None = None,
        oracle: str = "search",
        demonstration: bool = False,
        demonstrations: str | Path | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if oracle not in ("search", "rule"):
            raise ConfigError(f"oracle: found {oracle!r}, expected 'search' or 'rule'")
        self.oracle_name = oracle
        self.demonstration = demonstration or demonstrations is not None
        self.demonstrations = demonstrations
        self._engine: GameEngine | None = None
        self._game: Game | None = None
        self._room = ""
        self._commands: tuple[str, ...] = ()

    @property
    def admissible_actions(self) -> tuple[str, ...]:
        """Commands that the running game accepts now; empty before `reset`."""
        return self._commands

    @property
    def kind(self) -> str:
        """Task type of the game of the last `reset`, or ""."""
        return self._game.kind if self._game else ""

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "alfworld-test-<task>-<trial>", equal for both data layouts."""
        return tuple(
            f"{self.name}-{split}-{game_key(path)}"
            for path in split_paths(open_games(self.data), split)
        )

    def state_digest(self) -> str | None:
        """Return a hash of all facts that hold in the game; see `TextEnvironment.state_digest`."""
        if self._engine is None:
            return None
        return sha256(repr(self._engine.facts()).encode()).hexdigest()

    def oracle(self) -> Oracle:
        """Yield steps that win the game; the search oracle stops early if it finds nothing."""
        if self._game is None or self._engine is None:
            raise ResetNeeded("no task has been started; call reset")
        goal = read_goal(self._instruction)
        if self.oracle_name == "rule":
            yield from RuleOracle(goal, self._engine.facts()).moves()
            return
        key, habits = self._game.key, learned_habits(open_games(self.data))
        searcher = SearchOracle(
            goal, self._room, lambda kind, place: habits.worth(kind, place, key), key
        )
        yield from searcher.moves()

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`."""
        if lacking := missing_packages():
            return lacking
        try:
            split_paths(open_games(data), "test")
        except AgentTuningError as error:
            return str(error)
        return ""

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Check the games; see `TextEnvironment.setup`."""
        super().setup(data, say)
        games = open_games(data)
        if OLD_COMMAND not in games.read(split_paths(games, "test")[0]).grammar:
            say(
                f"{cls.name}: the games in {games.folder} have no command '{OLD_COMMAND}': they "
                "are ALFWorld's from 0.4 on, with 'move', and do not match AgentInstruct's rows"
            )

    def _begin(self, task_id: str) -> ResetResult:
        self._game = game = _find_game(open_games(self.data), task_id)
        self._engine = self._engine or GameEngine()
        scene = self._engine.start(game)
        self._commands = scene.commands
        # A banner is followed by the room and the task.
        self._room = "\n".join(scene.feedback.split("\n\n")[1:])
        return ResetResult(self._room, self._room.partition(_TASK)[2].strip(), self._extras())

    def _act(self, action: str) -> StepResult:
        if self._engine is None:
            raise ResetNeeded("no task has been started; call reset")
        valid = action in self._commands
        scene = self._engine.act(action)
        self._commands = scene.commands
        return StepResult(
            shown_observation(scene.feedback),
            exit_reason=COMPLETED if scene.won else "",
            score=float(scene.won),
            valid=valid,
            info=self._extras(),
        )

    def _end(self) -> None:
        self._commands = ()

    def _extras(self) -> dict[str, object]:
        return {"admissible_actions": self._commands, "kind": self.kind}


@lru_cache(maxsize=2)
def learned_habits(games: Games) -> Habits:
    """Return object location statistics, learned from training games evenly sampled."""
    paths = split_paths(games, "train")
    step = max(1, len(paths) // _MAX_ROOMS)
    return Habits(_rooms(games, paths[::step]))


def _rooms(games: Games, paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for path in paths:
        game = games.read(path)
        yield game.key, game.problem


def _find_game(games: Games, task_id: str) -> Game:
    name, _, rest = task_id.partition("-")
    split, _, key = rest.partition("-")
    if name == NAME and split in SPLITS:
        for path in split_paths(games, split):
            if game_key(path) == key:
                return games.read(path)
    raise ConfigError(
        f"task {task_id!r} is unknown; expected one such as alfworld-test-<task>-<trial>"
    )
