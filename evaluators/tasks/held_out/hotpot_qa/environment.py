"""HotpotQA environment: search a page, look words up in it, finish with an answer."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    OracleStep,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from evaluators.tasks.held_out.hotpot_qa.answers import token_f1
from evaluators.tasks.held_out.hotpot_qa.pages import DistractorStore, Page, PageStore
from evaluators.tasks.held_out.hotpot_qa.questions import (
    LEVELS,
    Question,
    find_questions,
    read_questions,
)
from evaluators.tasks.held_out.hotpot_qa.wikipedia import WIKIPEDIA, WikipediaStore

STORES = ("local", "wikipedia")
SENTENCES = 5
"""Sentences of a page that a search shows."""

_ACTION = re.compile(r"(\w+)\s*\[(.*)\]", re.DOTALL)


class HotpotQaEnvironment(TextEnvironment):
    """A question; the score is the token F1 of the answer.

    `search[entity]` shows the beginning of a page, or titles like it; `lookup[words]` the
    next sentence with these words in the page found last; `finish[answer]` ends.

    Args:
        data: Folder with `easy.jsonl`, `medium.jsonl` and `hard.jsonl`.
        render_mode: Gymnasium's.
        store: "local" for the paragraphs that come with the questions, "wikipedia" for the
            live one.
        wikipedia_url: Address of its API.
        demonstrations: File with worked examples in place of ours; see `demonstrations`.

    Raises:
        ConfigError: The store is unknown.
    """

    name: ClassVar[str] = "hotpot_qa"
    data_names: ClassVar[tuple[str, ...]] = ("hotpotqa", "hotpot_qa")
    idle_action: ClassVar[str] = "search[]"

    def __init__(
        self,
        data: str | Path | None = None,
        render_mode: str | None = None,
        store: str = STORES[0],
        wikipedia_url: str = WIKIPEDIA,
        demonstrations: str | Path | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if store not in STORES:
            raise ConfigError(
                f"{self.name}: store: found {store!r}, expected {' or '.join(STORES)}"
            )
        self.demonstrations = demonstrations
        self.isolation: Isolation = "inline" if store == STORES[0] else "thread"
        self._live = WikipediaStore(wikipedia_url) if store != STORES[0] else None
        self._question: Question | None = None
        self._page: Page | None = None
        self._words, self._next = "", 0

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`."""
        try:
            find_questions(data)
        except SourceNotFoundError as error:
            return str(error)
        return ""

    def store(self) -> PageStore:
        """The searched page store."""
        return self._live or _local(find_questions(self.data))

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return the questions' ids, cycling through the levels."""
        if split != "test":
            raise ConfigError(f"{self.name}: split {split!r} is unknown; known: test")
        by_level = read_questions(find_questions(self.data))
        most = max(map(len, by_level.values()))
        return tuple(
            f"{self.name}-test-{level}-{number:03d}"
            for number in range(most)
            for level in LEVELS
            if number < len(by_level[level])
        )

    def question(self, task_id: str) -> Question:
        """Return the question of a task.

        Raises:
            ConfigError: There is none.
        """
        try:
            _, _, level, number = task_id.split("-")
            return read_questions(find_questions(self.data))[level][int(number)]
        except (ValueError, KeyError, IndexError) as error:
            if isinstance(error, DataError):
                raise
            raise ConfigError(f"{self.name}: task {task_id!r} is unknown") from error

    def _begin(self, task_id: str) -> ResetResult:
        question = self.question(task_id)
        self._question, self._page, self._words = question, None, ""
        return ResetResult(question.text, question.text, {"kind": question.level})

    def _act(self, action: str) -> StepResult:
        verb, argument = read_action(action)
        if verb == "search":
            return StepResult(self._search(argument))
        if verb == "lookup":
            return StepResult(self._lookup(argument))
        if verb == "finish":
            score = token_f1(argument, require_episode(self._question).answer)
            return StepResult(exit_reason="answered", score=score)
        return StepResult(
            "Invalid action. Use search[entity], lookup[words] or finish[answer].", valid=False
        )

    def _search(self, entity: str) -> str:
        self._words = ""
        found = self.store().find(entity)
        if isinstance(found, Page):
            self._page = found
            return " ".join(found.sentences()[:SENTENCES])
        # As with the published agent, words can then not be looked up in the previous page.
        self._page = None
        return f"Could not find [{entity}]. Similar: {found}."

    def _lookup(self, words: str) -> str:
        if self._page is None:
            return "No page is open: the last search found none. Search for a page first."
        if words.casefold() != self._words:
            self._words, self._next = words.casefold(), 0
        hits = [text for text in self._page.sentences() if self._words in text.casefold()]
        if self._next >= len(hits):
            return "No more results." if hits else "No results."
        self._next += 1
        return f"(Result {self._next} / {len(hits)}) {hits[self._next - 1]}"

    def oracle(self) -> Oracle:
        """Search the pages that contain the answer, then answer."""
        question = require_episode(self._question)
        for title in question.titles:
            yield OracleStep(f"The page {title} should tell.", f"search[{title}]")
        yield OracleStep("That is enough to answer.", f"finish[{question.answer}]")


def read_action(text: str) -> tuple[str, str]:
    """Return verb in lower case and argument of an action, such as `Search[Berlin]`."""
    found = _ACTION.match(text.strip())
    return (found.group(1).lower(), found.group(2).strip()) if found else ("", "")


@lru_cache(maxsize=2)
def _local(folder: Path) -> DistractorStore:
    questions = [each for level in read_questions(folder).values() for each in level]
    return DistractorStore(p for question in questions for p in question.paragraphs)
