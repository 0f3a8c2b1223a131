"""MiniWoB++ environment: a page as text, and actions on its elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.environments.base import (
    Isolation,
    Oracle,
    ResetResult,
    StepResult,
    TextEnvironment,
)
from dataset_builders.environments.episode_checks import require_episode
from dataset_builders.errors import ConfigError, EnvironmentFailureError
from evaluators.tasks.held_out.miniwob import browser
from evaluators.tasks.held_out.miniwob.actions import read_command
from evaluators.tasks.held_out.miniwob.browser import Browser
from evaluators.tasks.held_out.miniwob.oracles import solve
from evaluators.tasks.held_out.miniwob.tasks import task_and_seed, task_ids

LINES, HTML = "lines", "html"


class MiniWobEnvironment(TextEnvironment):
    """A small web task in a real browser.

    The score is 1 if the page's reward is above 0 (AgentTuning's rule; some pages give partial
    rewards), else 0. An action that cannot be executed is reported in the observation, with
    `valid_action` false. Exit reason: "completed".

    Args:
        data: Unused; the pages are in the `miniwob` package.
        observation: "lines" (numbered elements) or "html" (the page's own text, as in
            AgentTuning's run).
        render_mode: Gymnasium's; nothing is ever drawn.
    """

    name: ClassVar[str] = "miniwob"
    isolation: Isolation = "process"
    idle_action: ClassVar[str] = "press tab"

    def __init__(
        self,
        data: str | Path | None = None,
        observation: str = LINES,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(data, render_mode)
        if observation not in (LINES, HTML):
            raise ConfigError(
                f"miniwob: observation: found {observation!r}, expected {LINES!r} or {HTML!r}"
            )
        self.observation = observation
        self._browser: Browser | None = None
        self._task: str | None = None

    @classmethod
    def missing(cls, data: str | Path | None = None) -> str:
        """See `TextEnvironment.missing`."""
        del data
        return browser.missing()

    def task_ids(self, split: str) -> tuple[str, ...]:
        """Return ten episodes of each of 46 tasks; only "test", so that none is trained on."""
        if split != "test":
            raise ConfigError(f"split {split!r} is unknown; miniwob is held out: test only")
        return task_ids()

    def oracle(self) -> Oracle:
        """Yield steps of a script for the running task, if there is one.

        Raises:
            EnvironmentFailureError: There is none.
        """
        task = require_episode(self._task)
        if self.observation != LINES:
            raise EnvironmentFailureError("miniwob: the oracle reads observation 'lines' only")
        return solve(task, self._instruction, self._elements)

    def unchanged(self) -> dict[str, Any]:
        """Return `info` of the running episode, after no action."""
        return self._info(StepResult(info={"kind": require_episode(self._task)}))

    def _elements(self) -> list[dict[str, Any]]:
        return self._program().elements()

    def _begin(self, task_id: str) -> ResetResult:
        task, seed = task_and_seed(task_id)
        try:
            wanted = self._program().begin(task, seed)
            page = self._page()
        except EnvironmentFailureError:
            self._drop()
            raise
        self._task = task
        return ResetResult(f"Task: {wanted}\n{page}", wanted, {"kind": task})

    def _act(self, action: str) -> StepResult:
        info = {"kind": require_episode(self._task)}
        command = read_command(action)
        if command is None:
            return StepResult(f"That is no action.\n{self._page()}", valid=False, info=info)
        try:
            problem = self._program().perform(command)
            over, reward = self._program().result()
            if over:
                return StepResult("", "completed", float(reward > 0), not problem, info)
            page = self._page()
        except EnvironmentFailureError:
            self._drop()
            raise
        said = f"That could not be done: {problem}.\n" if problem else ""
        return StepResult(f"{said}{page}", valid=not problem, info=info)

    def _page(self) -> str:
        if self.observation == HTML:
            return f"Page:\n{self._program().html()}"
        return "\n".join(["Page:", *map(line_of, *_numbered(self._elements()))])

    def _program(self) -> Browser:
        # Kept between episodes: it takes seconds to start.
        if self._browser is None:
            self._browser = Browser()
        return self._browser

    def _drop(self) -> None:
        program, self._browser = self._browser, None
        if program is not None:
            program.close()

    def _end(self) -> None:
        self._task = None


def _numbered(elements: list[dict[str, Any]]) -> tuple[range, list[dict[str, Any]]]:
    return range(1, len(elements) + 1), elements


def line_of(number: int, element: dict[str, Any]) -> str:
    """Format an element as a line, such as `[2] button "Submit" id=subbtn`.

    Args:
        number: Its number in actions.
        element: Its description by `page.js`: tag, text and other attributes.
    """
    facts = [element["tag"], *([element["type"]] if "type" in element else [])]
    facts.append(f'"{element["text"]}"')
    if "value" in element:
        facts.append(f'value="{element["value"]}"')
    facts += [name for name in ("checked", "selected", "focused") if element.get(name)]
    facts += [
        f"{name}={element[name]}"
        for name in ("id", "class", "color", "at", "size")
        if name in element
    ]
    return f"[{number}] {' '.join(facts)}"
