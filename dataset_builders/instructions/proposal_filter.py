"""Filter a model's task proposals: parse, compare, play, keep or drop."""

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
    """Settings of Self-Instruct.

    Attributes:
        num_tasks: Tasks to keep; the run stops there.
        max_requests: Maximum requests.
        per_request: Tasks requested per request.
        examples: Example tasks per request, at most a quarter of them generated.
        concurrency: Requests per round; the next round may show this round's tasks as examples.
        max_tokens: Maximum tokens of a reply.
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
    """Counts of requests and proposals by outcome.

    Attributes:
        requests: Requests made: `unusable`, or with proposals.
        unusable: Requests without a reply, by reason, and as "no_task" replies in which no
            task could be read.
        proposals: Proposals by outcome: "kept" or the reason they were dropped for.
        guarded_by: Number of evaluation tasks that proposals were compared with.
        stopped: Why generation stopped: "enough", "request_limit", "token_limit" or
            "cost_limit".
    """

    requests: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    proposals: Counter[str] = field(default_factory=Counter)
    guarded_by: int = 0
    stopped: str = ""


class Maker:
    """State of a Self-Instruct run.

    Args:
        kind: The environment's kind of tasks.
        seeds: Example tasks; those that cannot be formatted are skipped.
        guard: Evaluation tasks to exclude.
        settings: Settings of the run.
        journal: Verified proposals of earlier sessions and of this one.

    Attributes:
        kept: Sound tasks, in order.
        report: Counts of requests and proposals.

    Raises:
        ConfigError: No seed can be used as an example.
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
        """Whether generation has stopped; the report then states why."""
        if len(self.kept) >= self._settings.num_tasks:
            self.report.stopped = "enough"
        elif self.report.requests >= self._settings.max_requests:
            self.report.stopped = self.report.stopped or "request_limit"
        return bool(self.report.stopped)

    def requests(self, model: Policy) -> list[Coroutine[Any, Any, Reply]]:
        """Return the next round of requests."""
        first, settings = self.report.requests, self._settings
        return [
            model.next_turn(
                TurnRequest(
                    self.question(number),
                    settings.max_tokens,
                    f"{PURPOSE}-{self._kind.name}",
                    # The same examples may be drawn twice, and should give a different reply.
                    attempt=number,
                    round=number,
                    purpose=PURPOSE,
                )
            )
            for number in range(first, min(first + settings.concurrency, settings.max_requests))
        ]

    def question(self, number: int) -> tuple[Message, ...]:
        """Return a request; half ask for changes, as most train splits have only questions."""
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
        """Process a reply; after the budget is spent, later replies wait for a resume."""
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
    """Return the SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _draw(rng: random.Random, texts: Sequence[str], number: int) -> list[str]:
    return rng.sample(texts, min(number, len(texts)))
