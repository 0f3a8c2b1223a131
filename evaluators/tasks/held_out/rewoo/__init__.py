"""ReWOO: plan first, gather evidence, then answer (docs/tasks/held-out/rewoo.md)."""

from __future__ import annotations

from typing import Any

from dataset_builders.errors import ConfigError
from evaluators.evaluator import Evaluator
from evaluators.tasks.registry import SuiteSettings

_OPTIONS = ("data", "fewshot", "wikipedia", "google_url", "wolfram_url")


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of the available task sets.

    Args:
        name: "rewoo".
        settings: `judge` scores answers; its `options` may hold `data` (folder of the
            question files), `fewshot` (file with worked plans in place of ours),
            `wikipedia` ("live", or an API's address) and addresses of other tools.

    Raises:
        ConfigError: An option is unknown, or the judge cannot be used.
        SourceNotFoundError: No task set is there that can be scored.
        DataError: A file is not what it should be.
    """
    from evaluators.models.judge import Judge
    from evaluators.tasks.held_out.rewoo.evaluator import RewooEvaluator

    options: dict[str, Any] = dict(settings.options.get(name, {}))
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ConfigError(f"{name}: option {unknown[0]!r} is unknown; known: {', '.join(_OPTIONS)}")
    return RewooEvaluator(
        options.pop("data", None),
        root=settings.data,
        judge=Judge(settings.judge, name) if settings.judge else None,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        **options,
    )
