"""Per-source counts of records: kept, changed, dropped or lost.

Silently lost data is the commonest fault of a data pipeline, so each builder accounts for every
record that it reads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dataset_builders.conversation import Conversation
from dataset_builders.errors import DataError

MAX_SAMPLES = 3
"""Examples kept per drop reason."""

UNKNOWN_MODEL = "unknown"
"""Counter of conversations whose author model is unknown."""

_CHOSEN = {
    "train_on": "turns taken out of training by train_on",
    "reasoning": "turns whose reasoning was dropped",
    "reasoning_only": "turns not trained, since they held only reasoning",
    "vary_variants": "variants made",
    "vary_tools": "variants with other names of tools or actions",
    "vary_wording": "variants with another wording",
    "vary_order": "variants with another order of tools",
    "vary_none": "variants left out, since nothing more could be varied",
    "no_tool": "chats added that need no tool",
    "no_tool_skipped": "chats without a question and a text answer at the start",
}
"""Steps in `changed` that repair nothing, and what they count; see `sources.row_steps`."""

_MAX_DETAIL = 300  # characters; a detail may quote a field of any length
_MAX_NAMES = 256  # tasks, models; rows of unknown origin may each have one of their own
_MAX_IDS = 2**18  # identifiers that are remembered, some 40 MB

OTHER = "(other)"
"""Counter of all tasks, or models, beyond the first 256."""


class Rewards(NamedTuple):
    """Number, sum, minimum and maximum of the rewards of the conversations of a source."""

    number: int = 0
    total: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf

    def with_one(self, reward: float) -> Rewards:
        """Return these and one more."""
        return Rewards(
            self.number + 1,
            self.total + reward,
            min(self.lowest, reward),
            max(self.highest, reward),
        )

    def to_dict(self) -> dict[str, float]:
        """Return JSON-ready values: `count`, `mean`, `min`, `max`."""
        mean = self.total / self.number
        return {"count": self.number, "mean": mean, "min": self.lowest, "max": self.highest}

    def summary(self) -> str:
        """Return them as a part of a readable line."""
        return (
            f"{self.number:,} with a reward, mean {self.total / self.number:.4g} "
            f"({self.lowest:.4g} to {self.highest:.4g})"
        )


@dataclass(slots=True)
class SourceReport:
    """Record counts of one source, filled while it is read.

    Attributes:
        source: Label of the source, such as "agentinstruct:zai-org/AgentInstruct".
        read: Records read, well-formed or not.
        kept: Records that became a conversation.
        dropped: Records left out, by reason.
        changed: Turns removed or altered in kept conversations, by repair step.
        faults: Known faults of the source in kept conversations, by name, whether repaired or not;
            only formats that know some count them.
        models: Conversations kept, by the model that wrote them; "unknown" where no
            record and no setting tells.
        samples: Up to three dropped records per reason, as "file:record: detail".
        lost: Damage to files that hid an unknown number of records; one line each,
            with the number of characters and where. Not part of `read`.
        unread: Files and splits of the source that were not read, with the reason.
        limited: Whether reading stopped at the requested number of conversations.
        tasks: By task ("" where none is named), the kept `conversations` and their
            `trained_turns`: the numbers of AgentInstruct's dataset card.
        duplicate_ids: Kept conversations whose identifier an earlier one with other
            messages has; among the first 262,144 identifiers, so that memory is bounded.
        rewards: Of the kept conversations with a reward, their number, sum, minimum and maximum;
            none if no conversation has one.
        repeated: Kept conversations whose messages and tools an earlier one has, flags
            included; among the first 262,144.
    """

    source: str
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    limited: bool = False
    tasks: dict[str, dict[str, int]] = field(default_factory=dict)
    duplicate_ids: int = 0
    repeated: int = 0
    rewards: Rewards | None = None
    # Hash of the messages that first had an identifier, by hash of the identifier.
    _ids: dict[int, int] = field(default_factory=dict, repr=False)
    _contents: set[int] = field(default_factory=set, repr=False)

    def drop(self, reason: str, where: str, detail: str) -> None:
        """Count a record as left out.

        Args:
            reason: Short name to count under, such as "no_turns".
            where: The record, such as "db.jsonl:812".
            detail: What was found and what was expected.
        """
        self.dropped[reason] += 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(f"{where}: {_shorten(detail)}")

    def keep(
        self, changes: Mapping[str, int] | None = None, conversation: Conversation | None = None
    ) -> None:
        """Count a record as kept.

        Args:
            changes: Turns that each repair step removed or altered in it.
            conversation: What it became, for the counts by task and of identifiers.
        """
        self.kept += 1
        for step, turns in (changes or {}).items():
            if turns:
                self.changed[step] += turns
        if conversation is not None:
            self._count_task(conversation)
            self._count_again(conversation)
            if conversation.reward is not None:
                self.rewards = (self.rewards or Rewards()).with_one(conversation.reward)

    def count_model(self, name: str) -> None:
        """Count a kept conversation by the model that wrote it ("" if unknown)."""
        name = name or UNKNOWN_MODEL
        if name not in self.models and len(self.models) >= _MAX_NAMES:
            name = OTHER
        self.models[name] += 1

    def _count_task(self, conversation: Conversation) -> None:
        name = conversation.task
        if name not in self.tasks and len(self.tasks) >= _MAX_NAMES:
            name = OTHER
        task = self.tasks.setdefault(name, {"conversations": 0, "trained_turns": 0})
        task["conversations"] += 1
        task["trained_turns"] += conversation.num_trained

    def _count_again(self, conversation: Conversation) -> None:
        # Python's own hashes, of 64 bits: texts keep theirs, and no result is stored.
        content = hash((conversation.messages, conversation.tools))
        self.repeated += content in self._contents
        if len(self._contents) < _MAX_IDS:
            self._contents.add(content)
        if not conversation.id:
            return
        key = hash(conversation.id)
        if key in self._ids:
            self.duplicate_ids += self._ids[key] != content
        elif len(self._ids) < _MAX_IDS:
            self._ids[key] = content

    def check(self) -> None:
        """Verify that every record read is accounted for.

        Raises:
            DataError: `read` differs from `kept` plus all of `dropped`.
        """
        dropped = self.dropped.total()
        if self.read != self.kept + dropped:
            raise DataError(
                f"{self.source}: {self.read:,} records read, but {self.kept:,} kept and "
                f"{dropped:,} dropped: {self.read - self.kept - dropped:+,} unaccounted for"
            )

    def nothing_kept(self) -> str:
        """Describe in one line why no record could be used."""
        damage = f"; damage: {'; '.join(self.lost[:3])}" if self.lost else ""
        if not self.read:
            return f"{self.source}: found no record{damage}"
        counts = ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.most_common())
        commonest = self.dropped.most_common(1)[0][0]
        return (
            f"{self.source}: none of {self.read:,} records can be used: {counts}; "
            f"for example {self.samples[commonest][0]}{damage}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, highest counts first."""
        found: dict[str, Any] = {
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "changed": dict(self.changed.most_common()),
            "models": dict(self.models.most_common()),
            "samples": {reason: list(lines) for reason, lines in self.samples.items()},
            "lost": list(self.lost),
            "unread": list(self.unread),
            "limited": self.limited,
            "tasks": {task: dict(counts) for task, counts in self.tasks.items()},
            "duplicate_ids": self.duplicate_ids,
            "repeated": self.repeated,
        }
        found |= {"faults": dict(self.faults.most_common())} if self.faults else {}
        return found | ({"rewards": self.rewards.to_dict()} if self.rewards else {})

    def summary(self) -> str:
        """Return the report as one readable line."""
        text = f"{self.source}: kept {self.kept:,} of {self.read:,} records"
        if self.limited:
            text += " (stopped at the limit)"
        if self.dropped:
            text += f"; dropped {_counts(self.dropped)}"
        repaired = Counter({n: c for n, c in self.changed.items() if n not in _CHOSEN})
        if repaired:
            text += f"; turns repaired: {_counts(repaired)}"
        for name, words in _CHOSEN.items():
            if count := self.changed[name]:
                text += f"; {words}: {count:,}"
        if self.faults:
            text += f"; known faults: {_counts(self.faults)}"
        if self.duplicate_ids:
            text += f"; {self.duplicate_ids:,} with the id of another"
        if self.repeated:
            text += f"; {self.repeated:,} the same as an earlier one"
        if self.rewards:
            text += f"; {self.rewards.summary()}"
        if set(self.models) - {UNKNOWN_MODEL}:
            text += f"; written by {_counts(self.models)}"
        if self.lost:
            text += f"; damage: {'; '.join(self.lost[:MAX_SAMPLES])}"
        if len(self.lost) > MAX_SAMPLES:
            text += f"; {len(self.lost) - MAX_SAMPLES:,} more places"
        if self.unread:
            text += f"; {'; '.join(self.unread[:MAX_SAMPLES])}"
        if len(self.unread) > MAX_SAMPLES:
            text += f"; {len(self.unread) - MAX_SAMPLES:,} more files not read"
        return text


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{_shorten(name)} {count:,}" for name, count in counter.most_common())


def _shorten(detail: str) -> str:
    # One line that any terminal and log can show: no control characters, no lone surrogates.
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in detail)
    return line if len(line) <= _MAX_DETAIL else f"{line[:_MAX_DETAIL]}..."
