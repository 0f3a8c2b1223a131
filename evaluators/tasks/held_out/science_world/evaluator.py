"""ScienceWorld evaluator: the mean over tasks of the mean score."""

from __future__ import annotations

from collections.abc import Sequence

from dataset_builders.conversation import Message
from dataset_builders.environments.history import count_segments
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.model_policies import AnswerTurns
from evaluators.evaluator import Record
from evaluators.models.target import EvalTarget
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.held_out import load_held_out
from evaluators.tasks.held_out.science_world import demonstrations, simulator
from evaluators.tasks.held_out.science_world.dialogue import trim_old_turns
from evaluators.tasks.held_out.science_world.selection import task_and_variation
from evaluators.tasks.registry import SuiteSettings

MAX_PROGRAMS = 4
"""Episodes at once: each is a Java program of half a gigabyte."""


class ScienceWorldEvaluator(AgentTaskEvaluator):
    """Evaluates ScienceWorld; the paper's figure is `reward`, with equal weight per task."""

    macro = True

    def record(self, trajectory: Trajectory) -> Record:
        """Return an episode's record; its group is the task."""
        return super().record(trajectory) | {"group": task_and_variation(trajectory.task_id)[0]}

    def answer_turns(self, subject: EvalTarget) -> AnswerTurns:
        """See `AgentTaskEvaluator.answer_turns`; shown no more than the model has room for."""
        return fit_context(super().answer_turns(subject))

    def about(self) -> dict[str, str]:
        """Add which demonstrations are shown."""
        shown = demonstrations.label(self._environment.options.get("demonstrations"))
        return super().about() | {"demonstrations": shown}


def fit_context(answer: AnswerTurns) -> AnswerTurns:
    """Show a model less where its context has no room for all of a dialogue.

    AgentTuning's limit is designed for 4,096 tokens; a model with less could not play a step. A
    turn is None where not even the task and last turn fit.
    """

    def fitting(
        dialogues: Sequence[Sequence[Message]], max_new_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        shown = [tuple(dialogue) for dialogue in dialogues]
        turns = list(answer(shown, max_new_tokens, tools))
        while shorter := _shorter(shown, turns):
            places, asked = list(shorter), list(shorter.values())
            again = answer(asked, max_new_tokens, [tools[place] for place in places])
            for place, turn in zip(places, again, strict=True):
                shown[place], turns[place] = shorter[place], turn
        return turns

    return fitting


def _shorter(
    shown: Sequence[tuple[Message, ...]], turns: Sequence[str | None]
) -> dict[int, tuple[Message, ...]]:
    """Of dialogues that had no room, by their place, what is left without their oldest turns."""
    cut: dict[int, tuple[Message, ...]] = {}
    for place, (dialogue, turn) in enumerate(zip(shown, turns, strict=True)):
        if turn is None:
            size = sum(count_segments(message.content) for message in dialogue)
            cut[place] = trim_old_turns(dialogue, size * 9 // 10)
    return {place: left for place, left in cut.items() if len(left) < len(shown[place])}


def science_world(name: str, settings: SuiteSettings) -> AgentTaskEvaluator:
    """Create the evaluator.

    Args:
        name: "science_world".
        settings: The user's; of `options`: `demonstrations` (AgentTuning's `prompt.json`)
            and `prompt_segments`.

    Raises:
        MissingExtraError: `scienceworld` is not installed.
        SourceNotFoundError: There is no Java, or no such file of demonstrations.
        ConfigError: A setting is unknown.
    """
    spec = load_held_out(name, **settings.environment_options(name))
    simulator.check()
    evaluator = ScienceWorldEvaluator(
        spec,
        suite="held-out",
        keep_order=True,
        primary="reward",
        batch_size=min(settings.batch_size, MAX_PROGRAMS),
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )
    evaluator.about()  # A missing file of demonstrations is reported immediately.
    return evaluator
