"""Tasks of reasoning-gym: a question, an answer in `<answer>`, the package's own score.

`reasoning_gym:TASK` is one of its procedural datasets, such as `leg_counting` (Stojanovski et al.,
arXiv 2505.24760). Item n of the dataset with seed s is generated from s + n. The answer format is
that of the package's evaluation (`reasoning_gym.utils.extract_answer`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from dataset_builders.environments.adapters.seeded import FIRST_SEED, SeededWorld, named_class
from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
)
from dataset_builders.environments.dialogue import Dialogue
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from dataset_builders.extras import needs_extra
from dataset_builders.settings import suggestion
from dataset_builders.user_code import one_line

EXTRA = "reasoning-gym"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningWorld(SeededWorld):
    """A procedural dataset of reasoning-gym: one question, one answer.

    Args:
        size: Tasks of each split.
        config: Further settings of the dataset, such as `{"min_animals": 2}`.

    Attributes:
        dataset: Name of the dataset.
    """

    dataset: ClassVar[str]
    isolation: Isolation = "thread"
    idle_action: ClassVar[str] = ""

    def __init__(self, size: int | None = None, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(size)
        self.config = dict(config or {})
        self._made: dict[str, Any] = {}
        self._item: dict[str, Any] = {}

    def _generate(self, split: str, number: int) -> ResetResult:
        self._items = self._dataset(split)
        self._item = self._items[number]
        question = str(self._item["question"])
        return ResetResult(question, question)

    def _dataset(self, split: str) -> Any:
        if split not in self._made:
            with needs_extra(EXTRA):
                from reasoning_gym import create_dataset
            settings = {**self.config, "seed": FIRST_SEED[split], "size": self.size}
            try:
                self._made[split] = create_dataset(self.dataset, **settings)
            # The package checks its settings by assertions.
            except Exception as error:
                raise ConfigError(
                    f"reasoning_gym:{self.dataset}: create_dataset({self.config}) raised "
                    f"{one_line(error)}"
                ) from error
        return self._made[split]

    def _act(self, action: str) -> StepResult:
        try:
            score = self._items.score_answer(answer=action or None, entry=self._item)
        # Some scorers fail on an answer that they cannot parse: it is wrong.
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"[:200]
            return StepResult(exit_reason="answered", valid=False, info={"scorer": fault})
        return StepResult(exit_reason="answered", score=float(score))

    def oracle(self) -> Oracle:
        """Yield the dataset's own answer."""
        answer = self._item["answer"]
        if answer is None:
            raise EnvironmentFailureError(f"{self.name}: no answer is known for {self._task_id}")
        yield OracleStep("", str(answer))


class ReasoningDialogue(Dialogue):
    """The question as a user turn; the model answers in `<answer>`."""

    world: ClassVar[type[SeededWorld]] = ReasoningWorld
    round_limit: ClassVar[int] = 1
    max_new_tokens: ClassVar[int] = 1024
    prompt_template: ClassVar[Mapping[str, Any]] = {
        "first": "{observation}\n\nThink first, then give the final answer alone between <answer> "
        "and </answer>.",
    }

    def read(self, said: str) -> str | None:
        """Return the text of the last `<answer>`, None without one."""
        found = _ANSWER.findall(said)
        return found[-1].strip() if found else None

    def write(self, move: OracleStep) -> str:
        """Return the thought, if there is one, and the answer in its marks."""
        answer = f"<answer>{move.action}</answer>"
        return f"{move.thought}\n{answer}" if move.thought else answer


def dialogue_class(name: str) -> type[Dialogue]:
    """Return the dialogue of a dataset.

    Raises:
        ConfigError: The package has no such dataset.
        MissingExtraError: The package is not installed.
    """
    with needs_extra(EXTRA):
        from reasoning_gym.factory import DATASETS
    if name not in DATASETS:
        raise ConfigError(
            f"reasoning_gym:{name}: no such dataset{suggestion(name, list(DATASETS), 0.5)}"
        )
    return named_class(f"reasoning_gym:{name}", ReasoningDialogue, dataset=name)
