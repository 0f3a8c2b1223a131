"""Replay: evaluate a model on expert trajectories with forward passes only.

No episode is played. One forward pass over a trajectory shows what the model would do in each of
the expert's turns, given the same history: seconds where rollouts take minutes.
docs/tasks/replay.md shows how well it predicts rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import IGNORE_INDEX, Ints, TokenReport, TokenRow
from dataset_builders.environments import HELD_IN, EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import ConfigError
from dataset_builders.reasoning import spoken
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from evaluators.evaluator import EvalTarget, Evaluator, Record
from evaluators.models.logprobs import TokenScores
from evaluators.models.model_info import num_positions
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.turns import action_start

_BATCH = 8
"""Trajectories per progress report; the token model batches by length."""


def oracle_trajectories(
    environment: EnvironmentSpec, num_tasks: int, *, split: str = "test"
) -> list[Conversation]:
    """Play an environment's oracle on tasks that are not used for training.

    Args:
        environment: The environment.
        num_tasks: Number of tasks, the first in `item_order.fixed_order`; those that the oracle
            does not solve are skipped.
        split: An evaluation split.

    Raises:
        ConfigError: The split is the training split, or unknown.
        SourceNotFoundError: The environment's data are missing.
    """
    if split == "train":
        raise ConfigError(f"{environment.name}: split: found 'train', expected one for evaluation")
    tasks = fixed_order(environment.task_ids(split))[:num_tasks]
    return [
        Conversation.create(t.messages, id=t.task_id, source="oracle", task=environment.name)
        for t in play(environment, tasks, OraclePolicy())
        if t.success
    ]


@dataclass(frozen=True, slots=True)
class ReplayedTurn:
    """One expert turn, with the model's token-by-token predictions.

    Attributes:
        logprob: Sum over the action's tokens, in nats.
        tokens: Number of the action's tokens; all of the turn's if it has no action.
        agrees: Whether greedy decoding gives each of them.
        parsable: Whether the greedy tokens, each given the expert's prefix, can be parsed as an
            action; None if the environment is unknown.
    """

    logprob: float
    tokens: int
    agrees: bool
    parsable: bool | None


class ReplayEvaluator(Evaluator):
    """Compares a model's predictions with expert trajectories.

    Figures, each a mean over trajectories: `action_logprob` (mean log-likelihood of an
    action's token, in nats), `action_match` (share of turns whose whole action greedy
    decoding reproduces), `parsable` (share of turns in which the model's own greedy tokens
    parse as an action), `first_divergence` (share of the turns before the first whose
    action is not reproduced; 1 where all are) and `turn_logprob` (mean log-likelihood of a
    trained token, thoughts included).

    Args:
        conversations: Trajectories that training does not see; their trained turns are
            the expert's. `task` names the environment, by its own or AgentInstruct's name.
        environments: Those that `task` may name beside the held-in ones.
        limit: The first so many in `item_order.fixed_order`.
        name: Prefix of the figures in logs.
        max_length: Longest trajectory in tokens, if the model has positions for so many; a
            longer one is an error of its own item.

    Raises:
        ConfigError: No conversation has a trained turn.
    """

    suite = "replay"
    primary = "action_match"
    needs_weights: ClassVar[bool] = True
    generates: ClassVar[bool] = False

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        limit: int | None = None,
        name: str = "replay",
        max_length: int = 4096,
        environments: Sequence[EnvironmentSpec] = (),
    ) -> None:
        self.name = name
        self._environments = {each.name: each for each in environments if each.is_own}
        usable = [conversation for conversation in conversations if conversation.num_trained]
        if not usable:
            raise ConfigError(f"{name}: found no trajectory with a trained turn, expected some")
        named = _named(usable)
        chosen = fixed_order(named)[:limit]
        self._conversations = {item: named[item] for item in chosen}
        self._max_length = max_length

    def items(self) -> tuple[str, ...]:
        """Return the ids of the trajectories."""
        return tuple(self._conversations)

    def about(self) -> dict[str, str]:
        """Return number and digest of the trajectories."""
        texts = [[(m.role, m.content) for m in c.messages] for c in self._conversations.values()]
        digest = blake2b(repr(texts).encode("utf-8", "replace"), digest_size=4).hexdigest()
        return {"data": f"{len(texts)} trajectories, {digest}"}

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure trajectories; see `Evaluator.measure`."""
        length = min(self._max_length, num_positions(subject.model) or self._max_length)
        encoder = Encoder(subject.tokenizer, max_length=length, end_of_turn=subject.end_of_turn)
        reader = _Reader(subject.tokenizer)
        tokens = subject.tokens()
        for start in range(0, len(items), _BATCH):
            rows: dict[str, TokenRow] = {}
            for item in items[start : start + _BATCH]:
                report = TokenReport()
                row = next(encoder.encode([self._conversations[item]], report), None)
                if row is None:
                    finished({"item": item, "scores": {}, "error": report.summary()})
                else:
                    rows[item] = row
            scores = tokens.score([row.input_ids.tolist() for row in rows.values()]) if rows else []
            for (item, row), score in zip(rows.items(), scores, strict=True):
                has_action = self._reader_of(self._conversations[item].task)
                finished(_record(item, reader.turns(row, score, has_action), row, score))

    def _reader_of(self, task: str) -> Callable[[str], bool] | None:
        own = self._environments.get(task)
        return _reader_of(task) if own is None else own.make().has_action


def _named(conversations: Sequence[Conversation]) -> dict[str, Conversation]:
    """Name trajectories by their ids if these are unique, else by their numbers."""
    names = [conversation.id for conversation in conversations]
    if len(set(names)) < len(names) or not all(names):
        names = [f"trajectory-{number:05}" for number in range(len(names))]
    return dict(zip(names, conversations, strict=True))


class _Reader:
    """Splits a row into the expert's turns."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)

    def turns(
        self, row: TokenRow, score: TokenScores, has_action: Callable[[str], bool] | None
    ) -> list[ReplayedTurn]:
        """Return the trained turns, in order."""
        return [
            self._turn(row.input_ids, score, start, end, has_action)
            for start, end in _runs(row.labels)
            if start > 0
        ]

    def _turn(
        self,
        ids: Ints,
        score: TokenScores,
        start: int,
        end: int,
        has_action: Callable[[str], bool] | None,
    ) -> ReplayedTurn:
        expert, greedy = ids[start:end], score.likeliest[start - 1 : end - 1]
        first = start + self._action(expert.tolist())
        place = slice(first - 1, end - 1)
        parsable = None
        if has_action is not None:
            parsable = has_action(spoken(self._text(greedy.tolist())))
        return ReplayedTurn(
            float(score.logprobs[place].sum(dtype=np.float64)),
            end - first,
            bool((score.likeliest[place] == ids[first:end]).all()),
            parsable,
        )

    def _action(self, ids: list[int]) -> int:
        """Return the index of the token in which the turn's action begins."""
        begins = action_start(self._text(ids))
        if not begins:
            return 0
        # The first token that ends after the action's start. Prefixes only grow, except for
        # incomplete characters, so bisection would work; turns are short.
        for number in range(len(ids)):
            if len(self._tokenizer.decode(ids[: number + 1])) > begins:
                return number
        return 0

    def _text(self, ids: list[int]) -> str:
        while ids and ids[-1] in self._special:
            ids = ids[:-1]
        return str(self._tokenizer.decode(ids))


def _runs(labels: Ints) -> list[tuple[int, int]]:
    """Half-open ranges of trained tokens: a turn each, for something masked lies between."""
    trained = np.concatenate(([False], labels != IGNORE_INDEX, [False]))
    edges = np.flatnonzero(trained[1:] != trained[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _record(item: str, turns: list[ReplayedTurn], row: TokenRow, score: TokenScores) -> Record:
    if not turns:
        return {"item": item, "scores": {}, "error": "it has no trained turn left"}
    diverged = next((n for n, turn in enumerate(turns) if not turn.agrees), len(turns))
    trained = row.labels[1:] != IGNORE_INDEX
    scores = {
        "action_logprob": sum(t.logprob for t in turns) / sum(t.tokens for t in turns),
        "action_match": sum(turn.agrees for turn in turns) / len(turns),
        "first_divergence": diverged / len(turns),
        "turn_logprob": float(score.logprobs[trained].mean(dtype=np.float64)),
    }
    parsable = [turn.parsable for turn in turns if turn.parsable is not None]
    if parsable:
        scores["parsable"] = sum(parsable) / len(parsable)
    return {"item": item, "scores": scores, "error": "", "rounds": len(turns)}


@cache
def _reader_of(task: str) -> Callable[[str], bool] | None:
    """Return the parser of actions of the task's environment, if that is known."""
    dialogue = _dialogue(task)
    return None if dialogue is None else dialogue.has_action


def _dialogue(task: str) -> Dialogue | None:
    for name in HELD_IN:
        spec = EnvironmentSpec(name)
        if task in (name, spec.dialogue.agentinstruct_task):
            return spec.make()
    return None
