"""What becomes of a model's proposals: read, compared, played, kept or dropped."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_builders.conversation import Message
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.instructions import templates
from dataset_builders.instructions.budget import BudgetSpentError, Outcome
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.journal import Journal
from dataset_builders.instructions.proposals import Proposal, split_proposals
from dataset_builders.instructions.similarity import InstructionPool
from dataset_builders.instructions.task_kinds import Record, TaskKind
from dataset_builders.instructions.verification import verify
from dataset_builders.rollouts.policy import Policy, TurnRequest

KEPT = "kept"
MALFORMED = "malformed"
NO_TASK = "no_task"
SIMILAR = "similar_to_earlier"
SURPLUS = "beyond_num_tasks"
PURPOSE = "self_instruct"


@dataclass(frozen=True, slots=True)
class SelfInstructSettings:
    """How tasks are made.

    Attributes:
        num_tasks: Tasks to keep; making ends there.
        max_requests: Requests after which it ends in any case.
        per_request: Tasks that one request asks for.
        examples: Tasks that a request shows, at most a quarter of them made earlier.
        concurrency: Requests of a round; the next round may show what this one brought.
        max_tokens: Tokens that a reply may have.
        seed: Seeds the choice of examples.
    """

    num_tasks: int
    max_requests: int
    per_request: int = 3
    examples: int = 4
    concurrency: int = 4
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_tasks", "max_requests", "per_request", "examples", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected at least 1")


@dataclass(slots=True)
class SelfInstructReport:
    """What became of everything that the model wrote.

    Attributes:
        requests: Requests made: `unusable`, or with proposals.
        unusable: Requests without a reply, by reason, and as "no_task" replies in which no
            task could be read.
        proposals: Proposals by outcome: "kept" or the reason they were dropped for.
        guarded_by: Evaluation tasks that proposals were held against.
        stopped: Why making ended: "enough", "request_limit", "token_limit" or
            "cost_limit".
    """

    requests: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    proposals: Counter[str] = field(default_factory=Counter)
    guarded_by: int = 0
    stopped: str = ""


class Maker:
    """The state of a run.

    Args:
        kind: What tasks of the environment look like.
        seeds: Tasks to show; those without a form for it are passed over.
        guard: Evaluation tasks to stay away from.
        settings: How tasks are made.
        journal: What playing showed in earlier sessions, and now.

    Attributes:
        kept: Tasks that proved sound, in their order.
        report: What became of everything.

    Raises:
        ConfigError: No seed can be shown.
    """

    def __init__(
        self,
        kind: TaskKind,
        seeds: Sequence[Record],
        guard: EvaluationGuard,
        settings: SelfInstructSettings,
        journal: Journal,
    ) -> None:
        self._kind, self._guard, self._settings = kind, guard, settings
        self._journal = journal
        texts = ((seed, kind.show(seed)) for seed in seeds)
        shown = {kind.instruction(seed): (seed, text) for seed, text in texts if text}
        if not shown:
            raise ConfigError(f"seeds: found {len(seeds)}, none that can be shown as an example")
        self._changes = [text for seed, text in shown.values() if kind.changes(seed)]
        self._answers = [text for seed, text in shown.values() if not kind.changes(seed)]
        self._pool = InstructionPool(shown)
        self.kept: list[Record] = []
        self.report = SelfInstructReport(guarded_by=len(guard))

    def over(self) -> bool:
        """Whether making has ended; the report then says why."""
        if len(self.kept) >= self._settings.num_tasks:
            self.report.stopped = "enough"
        elif self.report.requests >= self._settings.max_requests:
            self.report.stopped = self.report.stopped or "request_limit"
        return bool(self.report.stopped)

    def requests(self, model: Policy) -> list[Coroutine[Any, Any, Reply]]:
        """The next round of requests."""
        first, settings = self.report.requests, self._settings
        return [
            model.next_turn(
                TurnRequest(
                    self.question(number),
                    settings.max_tokens,
                    f"{PURPOSE}-{self._kind.name}",
                    # The same examples may be drawn twice, and are to bring another reply.
                    attempt=number,
                    round=number,
                    purpose=PURPOSE,
                )
            )
            for number in range(first, min(first + settings.concurrency, settings.max_requests))
        ]

    def question(self, number: int) -> tuple[Message, ...]:
        """A request: changes and questions by halves, for most train splits only ask."""
        rng = random.Random(f"agenttuning/self-instruct/{self._settings.seed}/{number}")
        wanted = self._settings.examples
        made = [text for record in self.kept if (text := self._kind.show(record))]
        examples = _draw(rng, made, wanted // 4)
        examples += _draw(rng, self._changes, (wanted - len(examples)) // 2)
        examples += _draw(rng, self._answers, wanted - len(examples))
        rng.shuffle(examples)
        return templates.dialogue(
            self._kind.prompt,
            examples="\n\n".join(examples),
            number=str(self._settings.per_request),
        )

    def take(self, outcome: Outcome) -> None:
        """Use a reply; after a spent budget those of later requests wait for a resume."""
        if self.report.stopped:
            return
        if isinstance(outcome, BudgetSpentError):
            self.report.stopped = outcome.reason
            return
        self.report.requests += 1
        if isinstance(outcome, EpisodeEndedError):
            self.report.unusable[outcome.reason] += 1
            return
        proposals = split_proposals(outcome.text)
        if not proposals:
            self.report.unusable[NO_TASK] += 1
        for proposal in proposals:
            self.report.proposals[self._judge(proposal)] += 1

    def _judge(self, proposal: Proposal) -> str:
        if len(self.kept) >= self._settings.num_tasks:
            return SURPLUS
        try:
            record = self._kind.read(proposal)
        except DataError:
            return MALFORMED
        instruction = self._kind.instruction(record)
        if self._pool.nearest(instruction)[1]:
            return SIMILAR
        reason = self._guard.reason(instruction) or self._play(record)
        if not reason:
            self.kept.append(record)
            self._pool.add(instruction)
        return reason or KEPT

    def _play(self, record: Record) -> str:
        key = digest(record)
        known = self._journal.verdict(key)
        if known is not None:
            return known
        reason = self._kind.refuse(record) or self._verify(record)
        self._journal.write(key, reason, self._kind.instruction(record))
        return reason

    def _verify(self, record: Record) -> str:
        with tempfile.TemporaryDirectory(prefix="agenttuning-") as folder:
            self._kind.write(Path(folder), [record])
            environment = self._kind.environment(Path(folder))
            (task_id,) = environment.task_ids("train")
            return verify(environment, task_id, self._kind.idlers).reason


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _draw(rng: random.Random, texts: Sequence[str], number: int) -> list[str]:
    return rng.sample(texts, min(number, len(texts)))
