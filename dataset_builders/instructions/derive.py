"""Task Derivation (AgentTuning, section 2.1.1): tasks from questions with reference SQL.

A data set such as BIRD or Spider gives trajectories in two ways. A model can solve the
questions like any other task, and its result is compared with the reference's: that is
collection, with the tasks that are sound as train split. Or a trajectory is constructed
around the reference: that is executed, a model writes the thoughts, and the result is played, so
that its reward is measured like that of a collected one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dataset_builders.conversation import Message
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.environments.database.environment import ANSWER
from dataset_builders.environments.database.tables import TRUNCATED
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.instructions import templates
from dataset_builders.instructions.guard import EvaluationGuard
from dataset_builders.instructions.proposals import sections
from dataset_builders.instructions.similarity import words
from dataset_builders.instructions.thoughts import rejection, tidy, turn_of
from dataset_builders.instructions.verification import verify
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import Policy, ScriptedPolicy, TurnRequest

KEPT = "kept"
DUPLICATE = "duplicate"
TOO_LONG = "result_too_long"
NO_THOUGHTS = "no_usable_thoughts"
BELOW_THRESHOLD = "reward_below_threshold"

PURPOSE = "derivation"
MAX_TOKENS = 600
ATTEMPTS = 3

_IDLERS = ((f"{ANSWER}\n[]",), (f'{ANSWER}\n["done"]',))
_REFERENCE = re.compile(
    r"\b(?:reference|gold|expected|provided)\s+(?:solution|answer|result|sql|query)",
    re.IGNORECASE,
)
# Quoted texts and numbers of a result's rows, as Python formats them.
_SHOWN = ("user", "tool")  # Roles of what an environment returns.
_CELL = re.compile(r"'([^']*)'|\"([^\"]*)\"|(-?\d+(?:\.\d+)?)")


@dataclass(slots=True)
class DerivationReport:
    """Counts of records by outcome.

    Attributes:
        records: Records by outcome: "kept" or the reason they were dropped for.
        rejected: Replies with thoughts that were not used, by reason.
        first: The first example of each drop reason.
        guarded_by: Number of evaluation tasks that questions were compared with.
        stopped: "" or why not all records were processed.
    """

    records: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    guarded_by: int = 0
    stopped: str = ""

    def drop(self, reason: str, task_id: str, detail: str = "") -> None:
        """Count a record that is dropped."""
        self.records[reason] += 1
        self.first.setdefault(reason, f"{task_id}: {detail}" if detail else task_id)


class Sifter:
    """Decides which derived tasks are sound.

    Args:
        environment: Database environment whose train split they are.
        guard: Evaluation tasks to exclude.
        report: Updated when a task is dropped.
    """

    def __init__(
        self, environment: EnvironmentSpec, guard: EvaluationGuard, report: DerivationReport
    ) -> None:
        self._environment, self._guard, self._report = environment, guard, report
        self._seen: set[tuple[str, ...]] = set()
        report.guarded_by = len(guard)

    def solution(self, task_id: str, question: str) -> Trajectory | None:
        """Return the reference's trajectory, or None if the task is dropped.

        Dropped are repeated questions, tasks close to an evaluation task, tasks that `verify` finds
        unsound (including empty results, which an idle agent would match) and results too long to
        be shown whole: an agent could not read the answer.
        """
        key = tuple(words(question))
        if key in self._seen:
            self._report.drop(DUPLICATE, task_id)
            return None
        self._seen.add(key)
        if reason := self._guard.reason(question):
            self._report.drop(reason, task_id)
            return None
        verdict = verify(self._environment, task_id, _IDLERS)
        if verdict.reason or verdict.solution is None:
            self._report.drop(verdict.reason, task_id, verdict.detail)
            return None
        if any(message.content.endswith(TRUNCATED) for message in verdict.solution.messages):
            self._report.drop(TOO_LONG, task_id)
            return None
        return verdict.solution


async def construct(
    model: Policy,
    environment: EnvironmentSpec,
    solution: Trajectory,
    report: DerivationReport,
) -> Trajectory | None:
    """Build a trajectory around a reference: its actions, a model's thoughts, a measured reward.

    Args:
        model: Writes the thoughts, all of them with one request.
        environment: Where the solution was played, and the result is played.
        solution: From `Sifter.solution`; its own thoughts are templates.
        report: Updated.

    Returns:
        The trajectory as replayed, or None if it is dropped: no usable
        thoughts in `ATTEMPTS` replies, or no reward.

    Raises:
        UnprovenError: A request stays undecided; nothing is counted.
    """
    dialogue = environment.make()
    turns, failure, rejected = None, "", Counter[str]()
    try:
        turns = await _turns(model, dialogue, solution, rejected)
    except EpisodeEndedError as error:
        failure = error.reason
    finally:
        dialogue.close()
    report.rejected.update(rejected)
    if turns is None:
        report.drop(NO_THOUGHTS, solution.task_id, failure)
        return None
    played = play(environment, [solution.task_id], ScriptedPolicy(turns), batch_size=1)[0]
    if not played.success:
        report.drop(BELOW_THRESHOLD, solution.task_id, played.exit_reason)
        return None
    return played


async def _turns(
    model: Policy, dialogue: Dialogue, solution: Trajectory, rejected: Counter[str]
) -> list[str] | None:
    bare = [
        replace(message, content=str(dialogue.with_thought(turn_of(message), "...")))
        if message.trained
        else message
        for message in solution.messages
    ]
    acts = [turn_of(message) for message in bare if message.trained]
    question = templates.dialogue(
        "derivation", transcript=templates.transcript(bare), number=str(len(acts))
    )
    for attempt in range(ATTEMPTS):
        reply = await model.next_turn(
            TurnRequest(question, MAX_TOKENS, solution.task_id, attempt, attempt, PURPOSE)
        )
        thoughts = [part.body for part in sections(reply.text) if part.title == "thought"]
        reason = _rejection(thoughts, bare, dialogue)
        if not reason:
            pairs = zip(acts, thoughts, strict=True)
            return [dialogue.with_thought(act, tidy(thought)) for act, thought in pairs]
        rejected[reason] += 1
    return None


def _rejection(thoughts: Sequence[str], messages: Sequence[Message], form: Dialogue) -> str:
    """Return why thoughts cannot be used, or ""; in addition to `thoughts.rejection`.

    Returns:
        "wrong_number" of thoughts, "mentions_reference" (an acting model has none) or "foretells"
        (a thought contains a value of a result before that was observed).
    """
    acts = [index for index, message in enumerate(messages) if message.trained]
    if len(thoughts) != len(acts):
        return "wrong_number"
    for index, thought in zip(acts, thoughts, strict=True):
        if reason := rejection(thought, turn_of(messages[index]), form):
            return reason
        if _REFERENCE.search(thought):
            return "mentions_reference"
        if _foretells(thought, messages[: index + 1], messages[index + 1 :]):
            return "foretells"
    return ""


def _foretells(thought: str, before: Sequence[Message], after: Sequence[Message]) -> bool:
    """Whether a thought contains a value of a later result that did not occur before."""
    seen = _joined("\n".join(message.content for message in before))
    said = _joined(thought)
    for message in after:
        for cell in _CELL.findall(message.content) if message.role in _SHOWN else ():
            value = _joined("".join(cell))
            if value.strip() and value in said and value not in seen:
                return True
    return False


def _joined(text: str) -> str:
    return f" {' '.join(words(text))} "
