"""The WebArena evaluator."""

from __future__ import annotations

from dataset_builders.environments import EnvironmentSpec
from dataset_builders.rollouts.model_policies import AnswerTurns
from evaluators.models.target import Decoding, EvalTarget
from evaluators.tasks.agent_task import AgentTaskEvaluator, answer_turns
from evaluators.tasks.held_out.web_arena.environment import WebArenaEnvironment

TEMPERATURE = 1.0
TOP_P = 0.9


class WebArenaEvaluator(AgentTaskEvaluator):
    """Evaluates WebArena with sampling, as the benchmark does; the paper's figure is `success`.

    Args:
        environment: From `load_held_out("web_arena")`.
        batch_size: Browsers open at once.
        max_new_tokens: Limit on a turn below the benchmark's.
        seed: Sampling seed.
        judged: Whether there is a judge. Without one the tasks that need it are skipped.
    """

    def __init__(
        self,
        environment: EnvironmentSpec,
        *,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        seed: int = 0,
        judged: bool = False,
    ) -> None:
        super().__init__(
            environment,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            suite="held-out",
            keep_order=True,
            primary="success",
        )
        world = environment.world()
        assert isinstance(world, WebArenaEnvironment)
        every = self._tasks
        if not judged:
            self._tasks = tuple(item for item in every if not world.task(item).needs_judge)
        self._left_out = len(every) - len(self._tasks)
        self._seed = seed

    def answer_turns(self, subject: EvalTarget) -> AnswerTurns:
        """Samples as the benchmark does."""
        decoding = Decoding(0, temperature=TEMPERATURE, top_p=TOP_P, seed=self._seed)
        return answer_turns(subject.language_model(), self._max_new_tokens, decoding)

    def about(self) -> dict[str, str]:
        """Return prompt template, decoding and what was skipped."""
        facts = {
            "prompt": self._environment.wording().label,
            "decoding": f"temperature {TEMPERATURE}, top-p {TOP_P}, seed {self._seed}",
            "judge": str((self._environment.options.get("judge") or {}).get("model", "none")),
        }
        if self._left_out:
            facts["left_out"] = f"{self._left_out} tasks that need a judge"
        return facts
