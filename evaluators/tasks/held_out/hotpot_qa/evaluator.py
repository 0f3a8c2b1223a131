"""The HotpotQA evaluator: mean of the three levels' means."""

from __future__ import annotations

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.model_policies import AnswerTurns
from evaluators.evaluator import Record
from evaluators.models.target import Decoding, EvalTarget
from evaluators.tasks.agent_task import AgentTaskEvaluator, answer_turns
from evaluators.tasks.held_out.hotpot_qa.answers import exact_match
from evaluators.tasks.held_out.hotpot_qa.completion import CHARACTERS_PER_TOKEN, TextCompletion
from evaluators.tasks.held_out.hotpot_qa.dialogue import HotpotQaDialogue
from evaluators.tasks.held_out.hotpot_qa.environment import HotpotQaEnvironment, read_action

MODES = ("chat", "completion")


class HotpotQaEvaluator(AgentTaskEvaluator):
    """Evaluates question answering with search and lookup.

    Figures: `f1` (the paper's), `exact_match` and `valid_format`, each the mean of the
    means of easy, medium and hard questions.

    Args:
        environment: From `load_held_out("hotpot_qa")`.
        mode: "chat" for the model's chat template, "completion" for bare text.
        batch_size: Concurrent questions.
        max_new_tokens: Limit on a turn below the benchmark's.
        oracle: Whether the oracle plays, in place of the model.
    """

    macro = True

    def __init__(
        self,
        environment: EnvironmentSpec,
        *,
        mode: str = MODES[0],
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        oracle: bool = False,
    ) -> None:
        super().__init__(
            environment,
            oracle=oracle,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            suite="held-out",
            keep_order=True,
            primary="f1",
        )
        self._mode = mode
        world = environment.world()
        assert isinstance(world, HotpotQaEnvironment)
        self._world = world
        self._dialogue = HotpotQaDialogue(world, environment.wording())

    def answer_turns(self, subject: EvalTarget) -> AnswerTurns:
        """See `AgentTaskEvaluator.answer_turns`; bare text where that is the mode."""
        model = subject.language_model()
        if self._mode == MODES[0]:
            decoding = Decoding(0, stop=("\nObservation",))
            return answer_turns(model, self._max_new_tokens, decoding)

        def count(text: str) -> int:
            if not subject.has_weights:
                return -(-len(text) // CHARACTERS_PER_TOKEN)
            return len(subject.tokenizer(text)["input_ids"])

        return TextCompletion(model, count, self._max_new_tokens)

    def record(self, trajectory: Trajectory) -> Record:
        """See `AgentTaskEvaluator.record`; adds F1 and exact match, grouped by level."""
        record = super().record(trajectory)
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
        """Return prompt template, store and mode."""
        return super().about() | {
            "store": self._world.store().label,
            "mode": self._mode,
        }
