"""Replay: evaluate a model on expert trajectories with forward passes only.

No episode is played. One forward pass over a trajectory shows what the model would do in each of
the expert's turns, given the same history: seconds where rollouts take minutes.
docs/tasks/replay.md shows how well it predicts rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from typing import ClassVar

import numpy as np

from dataset_builders.conversation import Conversation, Message, uses_tools
from dataset_builders.encoding.encoder import Encoder
from dataset_builders.encoding.token_rows import IGNORE_INDEX, TokenReport, TokenRow
from dataset_builders.environments import HELD_IN, EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from evaluators.evaluator import EvalTarget, Evaluator, Record
from evaluators.models.local_calls import LocalCalls
from evaluators.models.logprobs import TokenScores
from evaluators.models.model_info import num_positions
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.replayed_turns import ReplayedTurn, TurnReader

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
        Conversation.create(
            t.messages, id=t.task_id, source="oracle", task=environment.name, tools=t.tools
        )
        for t in play(environment, tasks, OraclePolicy())
        if t.success
    ]


class ReplayEvaluator(Evaluator):
    """Compares a model's predictions with expert trajectories.

    Figures, each a mean over trajectories: `action_logprob` (mean log-likelihood of an
    action's token, in nats), `action_match` (share of turns whose whole action greedy
    decoding reproduces), `parsable` (share of turns in which the model's own greedy tokens
    parse as an action), `first_divergence` (share of the turns before the first whose
    action is not reproduced; 1 where all are) and `turn_logprob` (mean log-likelihood of a
    trained token, thoughts included).

    Where the trajectories are of several tasks, `action_match_TASK` and `turn_logprob_TASK` of each
    are figures too.

    The action of a turn that calls tools is its calls, as the chat template writes them; a turn
    without calls in such a trajectory is an action as a whole. Its `parsable` says that each call
    in the greedy tokens can be read, and that there is one where the expert calls a tool.

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
        self._by_task = len({each.task for each in self._conversations.values()}) > 1

    def items(self) -> tuple[str, ...]:
        """Return the ids of the trajectories."""
        return tuple(self._conversations)

    def about(self) -> dict[str, str]:
        """Return number and digest of the trajectories."""
        texts = [[_identity(m) for m in c.messages] for c in self._conversations.values()]
        digest = blake2b(repr(texts).encode("utf-8", "replace"), digest_size=4).hexdigest()
        return {"data": f"{len(texts)} trajectories, {digest}"}

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure trajectories; see `Evaluator.measure`."""
        length = min(self._max_length, num_positions(subject.model) or self._max_length)
        encoder = Encoder(subject.tokenizer, max_length=length, end_of_turn=subject.end_of_turn)
        reader = TurnReader(subject.tokenizer)
        tokens = subject.tokens()
        conversations = {item: self._conversations[item] for item in items}
        calls = None
        if any(map(_has_tools, conversations.values())):
            calls = LocalCalls(
                subject.tokenizer, (subject.tokenizer.eos_token, *subject.end_of_turn)
            )
        for start in range(0, len(items), _BATCH):
            rows: dict[str, TokenRow] = {}
            for item in items[start : start + _BATCH]:
                report = TokenReport()
                talk = conversations[item]
                row = next(encoder.encode([calls.row(talk) if calls else talk], report), None)
                if row is None:
                    finished({"item": item, "scores": {}, "error": report.summary()})
                else:
                    rows[item] = row
            scores = tokens.score([row.input_ids.tolist() for row in rows.values()]) if rows else []
            for (item, row), score in zip(rows.items(), scores, strict=True):
                talk = conversations[item]
                if calls and _has_tools(talk):
                    turns = reader.turns_with_tools(row, score, calls.spelling, talk.tools)
                else:
                    turns = reader.turns(row, score, self._reader_of(talk.task))
                record = _record(item, turns, row, score)
                finished(_with_task(record, talk.task) if self._by_task and talk.task else record)

    def _reader_of(self, task: str) -> Callable[[str], bool] | None:
        own = self._environments.get(task)
        return _reader_of(task) if own is None else own.make().has_action


def _has_tools(conversation: Conversation) -> bool:
    return bool(conversation.tools) or uses_tools([conversation])


def _identity(message: Message) -> tuple[object, ...]:
    calls = (message.tool_calls,) if message.tool_calls else ()
    return (message.role, message.content, *calls)


def _named(conversations: Sequence[Conversation]) -> dict[str, Conversation]:
    """Name trajectories by their ids if these are unique, else by their numbers."""
    names = [conversation.id for conversation in conversations]
    if len(set(names)) < len(names) or not all(names):
        names = [f"trajectory-{number:05}" for number in range(len(names))]
    return dict(zip(names, conversations, strict=True))


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


def _with_task(record: Record, task: str) -> Record:
    """Repeat the main figures under the name of the task."""
    scores = dict(record["scores"])
    scores |= {
        f"{name}_{task}": scores[name]
        for name in ("action_match", "turn_logprob")
        if name in scores
    }
    return {**record, "scores": scores}


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
