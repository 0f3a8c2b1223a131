"""Evaluator for environment tasks: the model acts, the environment scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dataset_builders.conversation import Message
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.references import code_digest
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.limits import Limits
from dataset_builders.rollouts.model_policies import (
    AnswerTurns,
    BatchingPolicy,
    ConcurrentPolicy,
)
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, Policy
from evaluators.evaluator import Evaluator, Metric, Record, Suite
from evaluators.models.answer_facts import turn_facts
from evaluators.models.target import Decoding, EvalTarget, LanguageModel
from evaluators.tasks.failure_modes import failure_modes, failure_rates
from evaluators.tasks.item_order import fixed_order
from evaluators.tasks.turns import transcript_message


class AgentTaskEvaluator(Evaluator):
    """Plays tasks of one environment with greedy decoding.

    Figures: `success` (share of episodes with full reward), `reward` (mean reward in
    [0, 1], the benchmark's own score) and `valid_format` (share of episodes in which
    every turn could be parsed as an action).

    Args:
        environment: The environment, its registry name, such as "database", or a reference.
        split: Split to play, by default the one that no training data comes from.
        num_tasks: Number of tasks, the first of the split in `item_order.fixed_order`; all of them
            by default.
        batch_size: Most episodes played at once, each a row of the generation batch; on a
            server as many of them as it sustains, independently of each other.
        max_new_tokens: Longest turn in tokens; by default what the benchmark sets. A lower
            limit saves time, mostly on models that do not know when to stop.
        max_turns: Most turns of an episode below the benchmark's limit; one that reaches it has
            reward 0. It saves time on models that repeat themselves.
        suite: Which of the paper's groups the figures belong to; by default "held-in", and "own"
            for an environment that is not the paper's.
        primary: The paper's figure: "success" or "reward".
        keep_order: Whether the split's own order stays, which mixes the kinds of its tasks
            already; else it is `item_order.fixed_order`.
        oracle: Whether the environment's own oracle plays, in place of the model; what is
            measured then is the environment and this evaluator.

    Raises:
        ConfigError: The environment or split is unknown, or the split is smaller.
        SourceNotFoundError: The environment's data is not there.
    """

    def __init__(
        self,
        environment: str | EnvironmentSpec = "database",
        *,
        split: str = "test",
        num_tasks: int | None = None,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        max_turns: int | None = None,
        suite: Suite | None = None,
        primary: str = "success",
        keep_order: bool = False,
        oracle: bool = False,
    ) -> None:
        if isinstance(environment, str):
            environment = load_environment(environment)
        name = environment.name
        self.name = name if split == "test" else f"{name}_{split}"
        self.suite = suite or ("own" if environment.is_own else "held-in")
        self.primary = primary
        self._environment = environment
        tasks = environment.task_ids(split)
        if num_tasks is not None and not 1 <= num_tasks <= len(tasks):
            raise ConfigError(
                f"{name}: num_tasks: found {num_tasks}, expected 1 to {len(tasks)} "
                f"(tasks of split {split!r})"
            )
        self._tasks = (tuple(tasks) if keep_order else fixed_order(tasks))[:num_tasks]
        self._batch_size = batch_size
        self._oracle = oracle
        self._max_new_tokens = max_new_tokens
        self._limits = Limits(steps=max_turns)

    @property
    def plays_oracle(self) -> bool:
        """Whether an oracle plays, so that no model is needed."""
        return self._oracle

    def extend_prompt(self, suffix: str) -> None:
        """Append a text to the prompt of every task; see `prompts.with_suffix`."""
        self._environment = replace(self._environment, prompt_suffix=suffix)

    def items(self) -> tuple[str, ...]:
        """Return the ids of the tasks."""
        return self._tasks

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Play tasks; see `Evaluator.measure`."""

        def ended(trajectory: Trajectory) -> None:
            finished(self.record(trajectory))

        limit = getattr(subject.server, "in_flight_limit", None)
        policy: Policy = OraclePolicy()
        if not self._oracle:
            answer = self.answer_turns(subject)
            policy = BatchingPolicy(answer) if limit is None else ConcurrentPolicy(answer)
        play(
            self._environment,
            items,
            policy,
            batch_size=self._batch_size,
            in_flight_limit=None if self._oracle else limit,
            on_progress=ended,
            limits=self._limits,
        )

    def record(self, trajectory: Trajectory) -> Record:
        """Return an episode's record; subclasses add its `group`."""
        record = record_of(trajectory)
        if not record["error"]:
            record["failures"] = failure_modes(record, trajectory.environment)
        return record

    def metrics(self, records: Sequence[Record]) -> dict[str, Metric]:
        """Aggregate, adding the share of episodes with each failure mode."""
        return super().metrics(records) | failure_rates(records)

    def answer_turns(self, subject: EvalTarget) -> AnswerTurns:
        """How the model answers dialogues."""
        return answer_turns(subject.language_model(), self._max_new_tokens)

    def about(self) -> dict[str, str]:
        """Return the prompt template, whether data are placeholders, and further settings."""
        facts = {key: str(value) for key, value in self._environment.options.items()}
        if self._environment.name == "database" and not {"tasks", "data"} & facts.keys():
            facts["tasks"] = "generated"
        if self._environment.is_own:
            facts["environment"] = self._environment.reference
            if digest := code_digest(self._environment.place):
                facts["code"] = digest
        facts["prompt"] = self._environment.wording().label
        if stand_in := self._environment.stand_in():
            facts["data"] = stand_in  # rather than the folder that lacks the real ones
        if self._oracle:
            facts["player"] = "oracle"
        if self._max_new_tokens:
            facts["max_new_tokens"] = str(self._max_new_tokens)
        if self._limits.steps:
            facts["max_turns"] = str(self._limits.steps)
        return facts


def answer_turns(
    model: LanguageModel, max_new_tokens: int | None = None, decoding: Decoding | None = None
) -> AnswerTurns:
    """A language model as what answers dialogues.

    Args:
        model: The model.
        max_new_tokens: Limit on a turn below the one that the environment sets.
        decoding: How turns are written, but for their length; greedily by default.
    """
    how = decoding or Decoding(0)

    def answer(
        dialogues: Sequence[Sequence[Message]], most: int, tools: Sequence[str]
    ) -> list[str | None]:
        limited = replace(how, max_new_tokens=min(most, max_new_tokens or most))
        if any(tools):
            return model.chat(dialogues, limited, tools)
        return model.chat(dialogues, limited)

    return answer


def record_of(trajectory: Trajectory) -> Record:
    """Return an episode's record."""
    rounds, valid = trajectory.num_rounds, trajectory.valid_rounds
    scores = {
        "success": float(trajectory.success),
        "reward": trajectory.reward,
        "valid_format": float(rounds > 0 and valid == rounds),
    }
    return {
        "item": trajectory.task_id,
        "scores": {} if trajectory.error else scores,
        "error": trajectory.error,
        "exit_reason": trajectory.exit_reason,
        "rounds": rounds,
        "valid_rounds": valid,
        "prompt": trajectory.prompt,
        **trajectory.details,
        **turn_facts(
            [m.content or "call" * bool(m.tool_calls) for m in trajectory.messages if m.trained],
            trajectory.cut_turns,
            trajectory.dropped_calls,
        ),
        **({"call_counts": dict(trajectory.call_counts)} if trajectory.tools else {}),
        "messages": [transcript_message(message) for message in trajectory.messages],
    }
