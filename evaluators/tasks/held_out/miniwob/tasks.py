"""The 46 tasks of MiniWoB++ that AgentTuning reports, ten episodes each."""

from __future__ import annotations

from functools import cache

from evaluators.tasks.held_out.task_ids import split_task_id

TASKS: tuple[str, ...] = (
    "choose-list",
    "click-button",
    "click-button-sequence",
    "click-checkboxes",
    "click-checkboxes-large",
    "click-checkboxes-soft",
    "click-checkboxes-transfer",
    "click-collapsible",
    "click-collapsible-2",
    "click-color",
    "click-dialog",
    "click-dialog-2",
    "click-link",
    "click-menu",
    "click-option",
    "click-scroll-list",
    "click-shades",
    "click-shape",
    "click-tab",
    "click-tab-2",
    "click-tab-2-hard",
    "click-test",
    "click-test-2",
    "click-widget",
    "count-shape",
    "email-inbox",
    "email-inbox-forward-nl",
    "email-inbox-forward-nl-turk",
    "email-inbox-nl-turk",
    "enter-date",
    "enter-password",
    "enter-text",
    "enter-text-dynamic",
    "enter-time",
    "focus-text",
    "focus-text-2",
    "grid-coordinate",
    "login-user",
    "navigate-tree",
    "search-engine",
    "simple-algebra",
    "social-media",
    "social-media-all",
    "social-media-some",
    "terminal",
    "use-spinner",
)
"""Names as in the `miniwob` package."""

EPISODES = 10

_PREFIX = "miniwob-test-"


@cache
def task_ids() -> tuple[str, ...]:
    """Return all 460 ids, cycling through the tasks."""
    return tuple(f"{_PREFIX}{name}-{number}" for number in range(EPISODES) for name in TASKS)


def task_and_seed(task_id: str) -> tuple[str, int]:
    """Parse an id such as "miniwob-test-click-button-3" into task and page seed.

    Raises:
        ConfigError: It is not one of `task_ids`.
    """
    return split_task_id(task_id, _PREFIX, task_ids())
