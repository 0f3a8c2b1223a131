"""The HotpotQA evaluator: mean of the three levels' means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dataset_builders.collection.rollout import ChatPolicy, play
from dataset_builders.environments import EnvironmentSpec
from evaluators.agent_tasks import AgentTaskEvaluator, ModelPolicy, record_of
from evaluators.base import Record
from evaluators.held_out.hotpot_qa.answers import exact_match
from evaluators.held_out.hotpot_qa.completion import CHARACTERS_PER_TOKEN, CompletionPolicy
from evaluators.held_out.hotpot_qa.dialogue import HotpotQaDialogue
from evaluators.held_out.hotpot_qa.environment import HotpotQaEnvironment, read_action
from evaluators.subject import Decoding, Subject

MODES = ("chat", "completion")


class HotpotQaEvaluator(AgentTaskEvaluator):
    """Answers questions with search and lookup.

    Figures: `f1` (the paper's), `exact_match` and `valid_format`, each the mean of the
    means of easy, medium and hard questions.

    Args:
        environment: Of `load_held_out("hotpot_qa")`.
        mode: "chat" for the model's chat template, "completion" for bare text.
        batch_size: Questions in play at once.
        max_new_tokens: Limit on a turn below the benchmark's.
    """

    macro = True

    def __init__(
        self,
        environment: EnvironmentSpec,
        *,
        mode: str = MODES[0],
        batch_size: int = 16,
        max_new_tokens: int | None = None,
    ) -> None:
        super().__init__(
            environment,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            suite="held-out",
            primary="f1",
        )
        self._mode = mode
        world = environment.world()
        assert isinstance(world, HotpotQaEnvironment)
        self._world = world
        self._dialogue = HotpotQaDialogue(world, environment.wording())

    def measure(
        self, subject: Subject, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """See `Evaluator.measure`."""
        play(
            self._environment,
            items,
            self._player(subject),
            batch_size=self._batch_size,
            on_progress=lambda trajectory: finished(self._scored(record_of(trajectory))),
        )

    def _player(self, subject: Subject) -> ChatPolicy:
        model = subject.language_model()
        if self._mode == MODES[0]:
            decoding = Decoding(0, stop=("\nObservation",))
            return ModelPolicy(model, self._max_new_tokens, decoding)

        def count(text: str) -> int:
            if not subject.has_weights:
                return -(-len(text) // CHARACTERS_PER_TOKEN)
            return len(subject.tokenizer(text)["input_ids"])

        return CompletionPolicy(model, count, self._max_new_tokens)

    def _scored(self, record: Record) -> Record:
        question = self._world.question(record["item"])
        record["group"] = question.level
        if not record["error"]:
            said = record["messages"][-1]["content"]
            verb, answer = read_action(self._dialogue.parse(said) or "")
            right = verb == "finish" and exact_match(answer, question.answer)
            scores = record["scores"]
            record["scores"] = {
                "f1": scores["reward"],
                "exact_match": float(right),
                "valid_format": scores["valid_format"],
            }
        return record

    def about(self) -> dict[str, str]:
        """Wording, store and mode."""
        return {
            "prompt": self._dialogue.prompt.label,
            "store": self._world.store().label,
            "mode": self._mode,
        }
