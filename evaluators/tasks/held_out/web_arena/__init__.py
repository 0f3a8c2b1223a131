"""WebArena through BrowserGym (docs/tasks/held-out/web-arena.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evaluators.evaluator import Evaluator
from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of the 812 tasks.

    Args:
        name: "web_arena".
        settings: `judge` decides whether answers are equivalent to the right ones; its
            `options` are arguments of `WebArenaEnvironment`, such as `data`.

    Raises:
        MissingExtraError: BrowserGym's WebArena is not installed.
        ConfigError: A site's address is not set, or an option is unknown.
        SourceNotFoundError: The tasks are missing.
    """
    from dataset_builders.errors import ConfigError, MissingExtraError
    from evaluators.tasks.held_out import load_held_out
    from evaluators.tasks.held_out.web_arena import browser
    from evaluators.tasks.held_out.web_arena.evaluator import WebArenaEvaluator

    judge = settings.judge
    options: dict[str, Any] = {"data": settings.data and f"{settings.data}/webarena"}
    options |= {"judge": asdict(judge)} if judge else {}
    options |= settings.environment_options(name)
    if missing := browser.missing():
        raise (ConfigError if browser.installed() else MissingExtraError)(missing)
    return WebArenaEvaluator(
        load_held_out(name, **options),
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
        judged=judge is not None,
    )
