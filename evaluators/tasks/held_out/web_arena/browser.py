"""Access to BrowserGym's WebArena, if it is installed.

It is not an extra of this package: it requires an older transformers than training does.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Protocol

SITES = ("SHOPPING", "SHOPPING_ADMIN", "REDDIT", "GITLAB", "WIKIPEDIA", "MAP", "HOMEPAGE")
"""Names of the sites; an environment variable `WA_<name>` holds the address of each."""


class Browser(Protocol):
    """The used part of a BrowserGym environment: Gymnasium's interface."""

    def reset(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Open the task's page."""

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Execute an action."""

    def close(self) -> None:
        """Close the browser."""


def installed() -> bool:
    """Whether BrowserGym's WebArena can be imported."""
    return importlib.util.find_spec("browsergym") is not None and (
        importlib.util.find_spec("browsergym.webarena") is not None
    )


def missing() -> str:
    """Return why WebArena cannot run here, in one line, or ""."""
    unset = ", ".join(f"WA_{site}" for site in SITES if not os.environ.get(f"WA_{site}"))
    sites = f"addresses of its sites in {unset}" if unset else ""
    if not installed():
        also = f", and {sites}" if sites else ""
        return (
            "web_arena: needs BrowserGym in an environment of its own "
            f"(docs/tasks/held-out/web-arena.md){also}: pip install browsergym-webarena"
        )
    return f"web_arena: needs the {sites}" if sites else ""


def sites() -> dict[str, str]:
    """Return the configured site URLs, by the name that task configs use."""
    return {f"__{site}__": url for site in SITES if (url := os.environ.get(f"WA_{site}"))}


def open_task(number: int) -> Browser:
    """Create a browser for a task; nothing is opened before its `reset`.

    Raises:
        ImportError: BrowserGym is not installed.
    """
    import gymnasium

    importlib.import_module("browsergym.webarena")
    action_sets = importlib.import_module("browsergym.core.action.highlevel")
    actions = action_sets.HighLevelActionSet(
        subsets=["chat", "bid", "nav", "tab"], multiaction=True, strict=False
    )
    made: Any = gymnasium.make(
        f"browsergym/webarena.{number}",
        headless=True,
        action_mapping=actions.to_python_code,
        disable_env_checker=True,
    )
    browser: Browser = made
    return browser


def page_text(observation: dict[str, Any]) -> str:
    """Return the accessibility tree of an observation as text."""
    if "axtree_txt" in observation:
        return str(observation["axtree_txt"])
    flatten = importlib.import_module("browsergym.utils.obs").flatten_axtree_to_str
    return str(flatten(observation["axtree_object"]))
