"""WebArena environment: pages as accessibility trees, actions in WebArena's grammar."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Isolation,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from evaluators.tasks.held_out.web_arena import actions, browser
from evaluators.tasks.held_out.web_arena.fuzzy import JudgedSame
from evaluators.tasks.held_out.web_arena.scoring import string_score, url_score
from evaluators.tasks.held_out.web_arena.tasks import Task, find_tasks, read_tasks

OBSERVATION_TOKENS = 1920
"""Of a page's text that a model is shown."""

_TOKEN = re.compile(r"\s*(?:[^\W\d_]{1,7}|\d{1,3}|\S)")


class WebArenaEnvironment(TextEnvironment):
    """A task in a browser, scored when the model stops.

    Args:
        data: Folder with `test.raw.json`.
        render_mode: Gymnasium's.
        judge: Settings of the judge, see `evaluators.models.judge.Judge`.
        open_task: Creates the browser of a task's number; BrowserGym's by default. A browser from
            another factory stays in this process.
    """

    name: ClassVar[str] = "web_arena"
    data_names: ClassVar[tuple[str, ...]] = ("webarena", "web_arena")
    isolation: Isolation = "process"
    idle_action: ClassVar[str] = actions.NO_ACTION

    def __init__(
        self,
        data: str | Path | None = None,
        render_mode: str | None = None,
        judge: Mapping[str, Any] | None = None,
        open_task: Callable[[int], browser.Browser] | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        self._open_task = open_task or browser.open_task
        if open_task is not None:
            self.isolation = "inline"
        self._same = JudgedSame(judge) if judge else None
        self._task: Task | None = None
        self._browser: browser.Browser | None = None
        self._url = ""

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`."""
        return browser.missing()

    def tasks(self) -> dict[int, Task]:
        """The tasks by number."""
        return read_tasks(find_tasks(self.data))

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return all task ids, in a fixed shuffled order."""
        if split != "test":
            raise ConfigError(f"{self.name}: split {split!r} is unknown; known: test")
        return tuple(f"{self.name}-test-{number}" for number in self.tasks())

    def task(self, task_id: str) -> Task:
        """Return the task with an id.

        Raises:
            ConfigError: There is none.
        """
        number = task_id.rpartition("-")[2]
        task = self.tasks().get(int(number)) if number.isdigit() else None
        if task is None:
            raise ConfigError(f"{self.name}: task {task_id!r} is unknown")
        return task

    def _begin(self, task_id: str) -> ResetResult:
        self._task = task = self.task(task_id)
        self._browser = self._open_task(task.number)
        observation, _ = self._browser.reset()
        return ResetResult(self._seen(observation), task.intent, {"kind": "+".join(task.kinds)})

    def _act(self, action: str) -> StepResult:
        found = actions.read(action)
        if found is None:
            return StepResult("", valid=False)
        verb, parts = found
        if verb == actions.STOP:
            return StepResult(exit_reason="answered", score=self._score(parts[0]))
        call = actions.to_browsergym(verb, parts)
        observation, reward, over, _, _ = require_episode(self._browser).step(call)
        seen = self._seen(observation)
        if over:
            # The browser's own scorer ended it: the page is right already, or forbidden.
            score = reward if "string_match" not in require_episode(self._task).kinds else 0.0
            return StepResult(exit_reason="ended_by_browser", score=float(score))
        failed = bool(observation.get("last_action_error"))
        return StepResult(seen, valid=not failed)

    def failed(self, exit_reason: str) -> dict[str, Any]:
        """Abort the episode: the current page may still be the right one."""
        score = self._score("") if self._browser is not None else 0.0
        return super().failed(exit_reason) | {
            "score": score,
            "success": score >= self.success_score,
        }

    def _score(self, answer: str) -> float:
        task, score = require_episode(self._task), 1.0
        if "string_match" in task.kinds:
            score *= string_score(task, answer, self._same)
        if "program_html" in task.kinds:
            call = actions.to_browsergym(actions.STOP, (answer,))
            _, reward, _, _, _ = require_episode(self._browser).step(call)
            return score * float(reward)
        if "url_match" in task.kinds:
            score *= url_score(task, self._url, browser.sites())
        return score

    def _seen(self, observation: dict[str, Any]) -> str:
        self._url = str(observation.get("url", ""))
        if not self._url:
            raise EnvironmentFailureError("web_arena: the browser's observation has no url")
        page = shortened(browser.page_text(observation), OBSERVATION_TOKENS)
        tabs = [str(url) for url in observation.get("open_pages_urls", ())]
        text = f"{page}\nURL: {self._url}"
        if len(tabs) > 1:
            text += "\nTABS: " + "; ".join(f"[{n}] {url}" for n, url in enumerate(tabs))
        if error := observation.get("last_action_error"):
            text += f"\nERROR: {str(error).strip().splitlines()[0][:300]}"
        return text

    def _end(self) -> None:
        opened, self._browser = self._browser, None
        if opened is not None:
            opened.close()


def shortened(text: str, tokens: int) -> str:
    """Return the beginning of a text.

    Counted in runs of seven letters, of three digits, and other characters: approximately the
    tokens of GPT-4's tokenizer, which the benchmark counts and which is not available offline.
    """
    for number, token in enumerate(_TOKEN.finditer(text)):
        if number == tokens:
            return text[: token.start()]
    return text
