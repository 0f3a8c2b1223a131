"""Games of textarena, alone or against a scripted opponent.

`textarena:GAME`, such as `textarena:GuessTheNumber-v0` (Guertler et al., arXiv 2504.11442). The
model is player 0. The score is its reward at the end, where negative ones (a loss, an invalid move)
count as 0. Games draw from Python's global random numbers, so each runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from dataset_builders.environments.adapters.seeded import FIRST_SEED, SeededWorld, named_class
from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
)
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.environments.own_code import guarded
from dataset_builders.environments.references import import_quietly, resolve
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from dataset_builders.extras import needs_extra
from dataset_builders.settings import suggestion

EXTRA = "textarena"
_ME = 0


class ArenaWorld(SeededWorld):
    """A game of textarena.

    Args:
        size: Tasks of each split.
        opponent: What the other player says: a text that it always says, such as "[Deny]", or
            "module:function" or "./file.py:function" of what makes its turn of the text it is
            shown. Games for one player need none.
        oracle: "module:function" or "./file.py:function" that makes the model's turns likewise, to
            validate the environment and to collect without a model.

    Attributes:
        game: Name of the game.
    """

    game: ClassVar[str]
    isolation: Isolation = "process"
    idle_action: ClassVar[str] = "I wait."

    def __init__(self, size: int | None = None, opponent: str = "", oracle: str = "") -> None:
        super().__init__(size)
        self.opponent, self.script = opponent, oracle
        self._start = ""
        self._env: Any = None

    def _generate(self, split: str, number: int) -> ResetResult:
        self._env = guarded(f"textarena:{self.game}", "make", lambda: _make(self.game))
        self._reply = _speaker("opponent", self.opponent)
        players = 1 if self._reply is None else 2
        try:
            self._env.reset(num_players=players, seed=FIRST_SEED[split] + number)
        except AssertionError as error:
            raise ConfigError(
                f"textarena:{self.game}: not a game for {players} ({error}); its option opponent "
                "is what the other player says"
            ) from error
        self._start = self._shown(*self._env.get_observation())
        return ResetResult(self._start, self._start)

    def _act(self, action: str) -> StepResult:
        over, _ = self._env.step(action)
        player, seen = (_ME, []) if over else self._env.get_observation()
        while not over and player != _ME:
            assert self._reply is not None
            over, _ = self._env.step(self._reply(self._shown(player, seen)))
            player, seen = (_ME, []) if over else self._env.get_observation()
        if not over:
            return StepResult(self._shown(player, seen))
        rewards, infos = self._env.close()
        mine = (infos or {}).get(_ME, {})
        reward = (rewards or {}).get(_ME)
        if reward is None:
            raise EnvironmentFailureError(f"{self.name}: found no reward of player 0 at the end")
        return StepResult(
            exit_reason="invalid_move" if mine.get("invalid_move") else "finished",
            score=min(1.0, max(0.0, float(reward))),
            valid=not mine.get("invalid_move"),
            info={"reward": float(reward), "reason": str(mine.get("reason") or "")},
        )

    def oracle(self) -> Oracle:
        """Yield the turns of the option `oracle`."""
        speak = _speaker("oracle", self.script)
        if speak is None:
            raise EnvironmentFailureError(f"{self.name}: no oracle: its option oracle is a script")
        shown = self._start
        while True:
            shown = yield OracleStep("", speak(shown))

    def _end(self) -> None:
        self._env = None

    @staticmethod
    def _shown(player: int, seen: Any) -> str:
        """Return what a player is shown: a text, or messages of (sender, text, kind)."""
        if isinstance(seen, str):
            return seen
        lines: list[str] = []
        for sender, text, *_ in seen:
            if sender != player:
                lines.append(str(text) if sender < 0 else f"Player {sender}: {text}")
        return "\n".join(lines).strip()


class ArenaDialogue(Dialogue):
    """A whole turn is the move: the games find their own marks in it, such as `[5]`."""

    world: ClassVar[type[SeededWorld]] = ArenaWorld
    round_limit: ClassVar[int] = 50
    max_new_tokens: ClassVar[int] = 256
    prompt_template: ClassVar[Mapping[str, Any]] = {"first": "{observation}"}

    def read(self, said: str) -> str | None:
        """Return the turn."""
        return said.strip() or None

    def write(self, move: OracleStep) -> str:
        """Return the thought, if there is one, and the move."""
        return f"{move.thought}\n{move.action}" if move.thought else move.action


def dialogue_class(name: str) -> type[Dialogue]:
    """Return the dialogue of a game.

    Raises:
        ConfigError: The package has no such game.
        MissingExtraError: The package is not installed.
    """
    games = _registry()
    if name not in games:
        raise ConfigError(f"textarena:{name}: no such game{suggestion(name, list(games), 0.5)}")
    return named_class(f"textarena:{name}", ArenaDialogue, game=name)


def _registry() -> Mapping[str, Any]:
    with needs_extra(EXTRA):
        from textarena.envs.registration import ENV_REGISTRY
    found: Mapping[str, Any] = ENV_REGISTRY
    return found


def _make(game: str) -> Any:
    import textarena

    # Without the wrappers, which repeat the whole game in each observation: a dialogue has it.
    raw = f"{game}-raw"
    return textarena.make(raw if raw in _registry() else game)


def _speaker(what: str, says: str) -> Callable[[str], str] | None:
    """Return what makes a player's turns of the text it is shown; None for no player.

    Args:
        what: The option.
        says: Its value: a reference to a function, or a text that is said each time.
    """
    if not says:
        return None
    target, colon, name = says.rpartition(":")
    if not colon or not name.isidentifier():
        return lambda _: says
    module, _, name = resolve(says).rpartition(":")
    function = getattr(import_quietly(module), name, None)
    if not callable(function):
        raise ConfigError(f"{what}: {target}: found no function {name!r}")
    return lambda shown: guarded(says, f"the {what}", lambda: str(function(shown)))
