"""AgentBench's Mind2Web task: steps of annotated tasks on recorded pages.

Each step is a separate task: earlier actions are as annotated, whatever the model chose.

Differences from AgentBench: candidates are shuffled by the task's identifier, not by one
generator for all; a step with one candidate or without a right one is played too, where AgentBench
counts it as failed without playing (the second still scores 0). Training steps without published
ranks have negatives drawn at random; the evaluation splits need ranks.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.data import find_data
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.environments.mind2web import made_up
from dataset_builders.environments.mind2web.dom import Node, parse_page, prune, represent
from dataset_builders.environments.mind2web.ranks import HINT
from dataset_builders.environments.mind2web.scoring import (
    LETTERS,
    NONE,
    operation_f1,
    reference_operation,
)
from dataset_builders.environments.mind2web.steps import SPLITS, Step
from dataset_builders.environments.mind2web.store import TOP_K, StepStore
from dataset_builders.errors import (
    AgentTuningError,
    ConfigError,
    DataError,
    EnvironmentFailureError,
    SourceNotFoundError,
)
from dataset_builders.storage import cache_folder

_log = logging.getLogger(__name__)

CHOICES = 5
"""Candidates shown at a time."""

PREVIOUS = 5
"""Number of previous actions shown, the latest ones."""

_WHAT = (
    "the Mind2Web data (train_*.json, test_domain_*.json and ranks.json; "
    "docs/tasks/held-in/mind2web.md)"
)


@dataclass(slots=True)
class _Episode:
    step: Step
    page: Node
    waiting: list[str]
    reference: str
    choices: list[tuple[str, str]] = field(default_factory=list)
    chosen: tuple[str, str] = ("", "")


class Mind2WebEnvironment(TextEnvironment):
    """Choose the page element to act on next, and the operation.

    Of a step's ten likeliest elements five are shown at a time; a chosen one is put to the
    end of the queue, until one is left. An action is a letter (A for none of those shown,
    B and on for a choice), a line break, and the operation with its value, such as
    `TYPE blue shoes`. The score is AgentBench's step success: 1 if the last chosen element
    is a right one and its operation has exactly the words of the reference; else 0. The
    observation is the page around the candidates, the task and the choices; `info` has
    them as `page`, `previous` and `choices`, and at the end `element_accuracy` and
    `operation_f1`. Exit reasons: "chosen", and "none_chosen" where no element was left.

    Args:
        data: Folder of Mind2Web's files.
        demonstrations: JSON file of turns `{role, content}` that the dialogue shows first;
            the benchmark's evaluation has three of them.
        made_up: Allow collecting from made-up pages; see `TextEnvironment.stand_in`.
        render_mode: Gymnasium's.
    """

    name: ClassVar[str] = "mind2web"
    success_score: ClassVar[float] = 2 / 3
    isolation: Isolation = "thread"
    data_names: ClassVar[tuple[str, ...]] = ("mind2web",)
    idle_action: ClassVar[str] = f"{NONE}\n"

    def __init__(
        self,
        data: str | Path | None = None,
        demonstrations: str | Path | None = None,
        made_up: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if not isinstance(made_up, bool):
            raise ConfigError(f"{self.name}: made_up: found {made_up!r}, expected true or false")
        self.demonstrations = demonstrations
        self._opened: StepStore | None = None
        self._episode: _Episode | None = None

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """Return why there is no data; see `TextEnvironment.missing`."""
        try:
            cls._folder(data)
        except AgentTuningError as error:
            return str(error)
        return ""

    @classmethod
    def stand_in(cls, data: str | Path | None = None) -> str:
        """Name the placeholder pages that `setup` generated; see `TextEnvironment.stand_in`."""
        try:
            return "made-up pages" if made_up.is_made_up(cls._folder(data)) else ""
        except AgentTuningError:  # There is no data at all.
            return ""

    @classmethod
    def setup(cls, data: str | Path | None, say: Callable[[str], None]) -> None:
        """Index the data; if there is none, generate placeholder pages for trying things out."""
        try:
            folder = cls._folder(data)
        except SourceNotFoundError:
            if data is not None:
                raise
            folder = cache_folder(cls.name)
            made_up.write(folder)
        StepStore(folder, say)
        if folder == cache_folder(cls.name) and made_up.is_made_up(folder):
            say(
                f"{cls.name}: {folder} holds MADE-UP pages, for trying things out only: a score "
                f"on them means nothing; put {_WHAT} elsewhere and name it as `data`"
            )

    @classmethod
    def _folder(cls, data: str | Path | None) -> Path:
        return find_data(cls.name, data, cls.data_names, ["**/*.json*"], _WHAT)

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ids such as "mind2web-test-<annotation_id>_<action_uid>".

        Only solvable training steps are returned; in other splits all steps count, as in the
        benchmark.
        """
        if split not in SPLITS:
            raise ConfigError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
        store = self._store()
        ids = store.ids(split, solvable=split == "train")
        if not ids:
            raise SourceNotFoundError(
                f"{self.name}: no steps of split {split} in {store.folder}: put {_WHAT} there"
            )
        return tuple(f"{self.name}-{split}-{each}" for each in ids)

    def oracle(self) -> Oracle:
        """Choose a right element whenever one is shown.

        Raises:
            EnvironmentFailureError: No candidate is right.
        """
        episode = self._current()
        right = episode.step.positives
        if not right:
            raise EnvironmentFailureError(f"{self._task_id}: no candidate is right")
        while True:
            place = next((i for i, (each, _) in enumerate(episode.choices) if each in right), None)
            if place is None:
                yield OracleStep("None of these elements leads on with the task.", self.idle_action)
                continue
            word = episode.choices[place][1]
            thought = f"To go on with the task I act on {word}"
            yield OracleStep(thought, f"{LETTERS[place]}\n{episode.reference}")

    def _begin(self, task_id: str) -> ResetResult:
        split, identifier = self._parts(task_id)
        found = self._store().step(split, identifier)
        if found is None:
            raise ConfigError(f"task {task_id!r} is unknown: no such step in {split}")
        step, ranked = found
        if not ranked and split != "train":
            raise SourceNotFoundError(
                f"{self.name}: no ranks.json beside the {split} split, without which it is not "
                f"the benchmark: {HINT}"
            )
        try:
            page = parse_page(step.page)
        except DataError as error:
            raise DataError(f"{task_id}: cleaned_html: {error}") from error
        self._episode = _Episode(
            step, page, _candidates(task_id, step), reference_operation(step.op, step.value)
        )
        observation, info = self._ask()
        return ResetResult(observation, step.task, info)

    def _act(self, action: str) -> StepResult:
        episode = self._current()
        letter, _, operation = action.partition("\n")
        place = LETTERS.find(letter) if letter else -1
        valid = letter == NONE or 0 <= place < len(episode.choices)
        if 0 <= place < len(episode.choices):
            element = episode.choices[place][0]
            episode.waiting.append(element)
            episode.chosen = (element, operation)
        if len(episode.waiting) > 1:
            observation, info = self._ask()
            return StepResult(observation, valid=valid, info=info)
        return self._end_of_step(episode, valid)

    def _end_of_step(self, episode: _Episode, valid: bool) -> StepResult:
        # AgentBench: if no element is left, nothing is predicted, whatever was chosen before.
        element, operation = episode.chosen if episode.waiting else ("", "")
        right = element in episode.step.positives
        f1 = operation_f1(operation, episode.reference) if episode.step.positives else 0.0
        return StepResult(
            exit_reason="chosen" if element else "none_chosen",
            score=float(right and f1 >= 1),
            valid=valid,
            info={"element_accuracy": float(right), "operation_f1": f1},
        )

    def _ask(self) -> tuple[str, dict[str, Any]]:
        """Show the next candidates."""
        episode = self._current()
        shown, episode.waiting = episode.waiting[:CHOICES], episode.waiting[CHOICES:]
        try:
            page, episode.choices = represent(prune(episode.page, shown))
        except DataError as error:
            raise DataError(f"{episode.step.id}: cleaned_html: {error}") from error
        info = {
            "page": page,
            "previous": list(episode.step.previous[-PREVIOUS:]),
            "choices": [text for _, text in episode.choices],
        }
        parts = [page, episode.step.task, *info["previous"], "", *listed(info["choices"])]
        return "\n".join(parts), info

    def _end(self) -> None:
        self._episode = None

    def _current(self) -> _Episode:
        return require_episode(self._episode)

    def _store(self) -> StepStore:
        if self._opened is None:
            folder = self._folder(self.data)
            self._opened = StepStore(folder)
            if made_up.is_made_up(folder):
                _warn_once(folder)
        return self._opened

    def _parts(self, task_id: str) -> tuple[str, str]:
        name, _, rest = task_id.partition("-")
        split, _, identifier = rest.partition("-")
        if name != self.name or split not in SPLITS:
            raise ConfigError(
                f"task {task_id!r} is unknown; expected mind2web-<split>-"
                f"<annotation_id>_<action_uid>, with a split of {', '.join(SPLITS)}"
            )
        return split, identifier


@cache
def _warn_once(folder: Path) -> None:
    # Otherwise a score on them could be mistaken for one on the benchmark.
    _log.warning("mind2web: %s holds MADE-UP pages: a score on them means nothing", folder)


def listed(choices: Sequence[str]) -> list[str]:
    """Format choices with their letters, one per line."""
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]


def _candidates(task_id: str, step: Step) -> list[str]:
    """Return at most ten candidates in random order, identical on every machine."""
    rng = random.Random(f"agenttuning/{task_id}")
    positives, negatives = list(step.positives[:TOP_K]), list(step.negatives)
    room = TOP_K - len(positives)
    if len(negatives) > room:  # Only without ranks: there are at most ten top-ranked ones.
        negatives = rng.sample(negatives, room)
    candidates = [*positives, *negatives]
    rng.shuffle(candidates)
    return candidates
