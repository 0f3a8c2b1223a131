"""Add thoughts to trajectories that lack them (AgentTuning, section 2.1.2).

ReAct's format is a thought followed by an action. Where a model acted without a thought, the paper
had one written afterwards. It is written from what the agent had seen so far and the action it
took, never from later turns, and it must not change the action.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from dataset_builders.collection.filters import refuses
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.conversation import Message
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.finish_reason import is_cut
from dataset_builders.instructions import templates
from dataset_builders.reasoning import THOUGHT_LABEL
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.policy import Policy, TurnRequest

PURPOSE = "thought"
MAX_TOKENS = 200
MAX_CHARACTERS = 800
ATTEMPTS = 3
"""Maximum requests per turn; after that it stays without a thought."""

_ACTION_LINE = re.compile(
    r"^\W*(?:act|action|answer|final answer|observation|value)\s*:|```",
    re.IGNORECASE | re.MULTILINE,
)


class ActionFormat(Protocol):
    """The methods of `Dialogue` that parse and rewrite turns."""

    def parse(self, turn: str) -> str | None:
        """Return the action of a turn."""

    def has_thought(self, turn: str) -> bool:
        """Whether the turn contains more than its action."""

    def with_thought(self, turn: str, thought: str) -> str:
        """Return the turn with this thought and the same action."""


@dataclass(slots=True)
class ThoughtReport:
    """Counts of trained turns by outcome.

    Attributes:
        turns: Trained turns by outcome: "had_thought", "no_action" (nothing to explain),
            "written", "left_bare" (no attempt gave a usable thought). The sum is all turns.
        rejected: Replies that were not used, by reason; see `rejection`.
    """

    turns: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return both counts as JSON-ready values."""
        return {"turns": dict(self.turns), "rejected": dict(self.rejected)}


def tidy(reply: str) -> str:
    """Normalise a reply to a thought: one paragraph without a label or outer quotes."""
    text = " ".join(THOUGHT_LABEL.sub("", reply.strip()).split())
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def rejection(reply: str, turn: str, form: ActionFormat) -> str:
    """Return why a reply cannot be a turn's thought, or "".

    Returns:
        "empty", "too_long", "refusal", "action" (it holds an action line or a code block)
        or "changes_action" (with it the turn would be parsed as another action).
    """
    thought = tidy(reply)
    if not re.search(r"\w", thought):
        return "empty"
    if len(thought) > MAX_CHARACTERS:
        return "too_long"
    if refuses(thought):
        return "refusal"
    if _ACTION_LINE.search(THOUGHT_LABEL.sub("", reply.strip())):
        return "action"
    if form.parse(form.with_thought(turn, thought)) != form.parse(turn):
        return "changes_action"
    return ""


async def add_thoughts(
    model: Policy, trajectory: Trajectory, dialogue: Dialogue, report: ThoughtReport
) -> Trajectory:
    """Give every trained turn without a thought one.

    Args:
        model: Writes the thoughts; its replies are stored under the trajectory's task, so that a
            second run requests none twice.
        trajectory: The trajectory; its reward and actions stay.
        dialogue: A dialogue of its environment; used only to parse and rewrite turns.
        report: Updated.

    Returns:
        The trajectory, the same object if nothing was missing. A turn for which no usable thought
        was written is unchanged, and counted.
    """
    messages = list(trajectory.messages)
    for index, message in enumerate(messages):
        if not message.trained:
            continue
        turn = turn_of(message)
        if dialogue.parse(turn) is None:
            report.turns["no_action"] += 1
        elif message.reasoning or dialogue.has_thought(turn):
            report.turns["had_thought"] += 1
        else:
            rewritten = await _write(model, trajectory, dialogue, messages[:index], turn, report)
            report.turns["written" if rewritten else "left_bare"] += 1
            messages[index] = replace(message, content=str(rewritten or turn))
    if messages == list(trajectory.messages):
        return trajectory
    return replace(trajectory, messages=tuple(messages))


@dataclass(slots=True)
class ThoughtAdder:
    """Collector hook that adds thoughts to a rewarded trajectory; can be pickled.

    Attributes:
        environment: The environment.
        report: Updated.
    """

    environment: EnvironmentSpec
    report: ThoughtReport = field(default_factory=ThoughtReport)
    _dialogue: Dialogue | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """See `Finisher.name`; a collection's settings have it as "finish"."""
        return PURPOSE

    def __reduce__(self) -> tuple[type[ThoughtAdder], tuple[EnvironmentSpec, ThoughtReport]]:
        return ThoughtAdder, (self.environment, self.report)

    def outcomes(
        self, store: SqliteRolloutLog, kept: Callable[[Trajectory], bool]
    ) -> dict[str, int]:
        """Return the turns of all sessions by outcome, as in `ThoughtReport.turns`.

        Args:
            store: The collection's: what was asked for is written down there, and so is
                what the trajectories became.
            kept: Says whose turns to count.
        """
        dialogue, outcomes = self._reader(), Counter[str]()
        for _, ending in store.endings():
            if kept(ending.trajectory):
                rounds = store.rounds(ending.trajectory.task_id, PURPOSE)
                asked = {number // ATTEMPTS for number in rounds}
                outcomes.update(_outcomes(ending.trajectory, asked, dialogue))
        return dict(outcomes)

    def _reader(self) -> Dialogue:
        if self._dialogue is None:
            self._dialogue = self.environment.make()
        return self._dialogue

    async def __call__(self, policy: Policy, trajectory: Trajectory) -> Trajectory:
        """Add thoughts to a trajectory; see `add_thoughts`."""
        return await add_thoughts(policy, trajectory, self._reader(), self.report)


def _outcomes(trajectory: Trajectory, asked: Collection[int], dialogue: Dialogue) -> Iterator[str]:
    for index, message in enumerate(trajectory.messages):
        if not message.trained:
            continue
        turn = turn_of(message)
        if dialogue.parse(turn) is None:
            yield "no_action"
        elif not (message.reasoning or dialogue.has_thought(turn)):
            yield "left_bare"
        else:
            yield "written" if index in asked else "had_thought"


def turn_of(message: Message) -> str:
    """Return an assistant turn as a dialogue parses it."""
    calls = message.tool_calls
    return Answer(message.content, tool_calls=calls) if calls else message.content


async def _write(
    model: Policy,
    trajectory: Trajectory,
    dialogue: Dialogue,
    seen: list[Message],
    turn: str,
    report: ThoughtReport,
) -> str:
    question = templates.dialogue(
        "thought",
        transcript=templates.transcript(dialogue.trim(seen)),
        action=dialogue.parse(turn) or "",
    )
    for attempt in range(ATTEMPTS):
        try:
            # Every request of a task has its own round.
            number = len(seen) * ATTEMPTS + attempt
            reply = await model.next_turn(
                TurnRequest(question, MAX_TOKENS, trajectory.task_id, attempt, number, PURPOSE)
            )
        except EpisodeEndedError as error:
            report.rejected[error.reason] += 1
            continue
        cut = is_cut(reply.finish_reason)
        reason = "cut_at_limit" if cut else rejection(reply.text, turn, dialogue)
        if not reason:
            return dialogue.with_thought(turn, tidy(reply.text))
        report.rejected[reason] += 1
    return ""
