"""ReWOO: plan first, gather evidence, then answer (docs/tasks/held-out/rewoo.md)."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from dataset_builders.settings import options
from evaluators.evaluator import Evaluator
from evaluators.tasks.held_out.rewoo.tools import GOOGLE, WOLFRAM
from evaluators.tasks.registry import SuiteSettings


@options
class Options:
    """Options of ReWOO."""

    data: str | None = Field(default=None, description="Folder of the question files.")
    fewshot: str | None = Field(
        default=None, description="File with worked plans in place of ours."
    )
    wikipedia: str | None = Field(default=None, description="`live`, or an API's address.")
    google_url: str = Field(default=GOOGLE, description="Address of the search tool.")
    wolfram_url: str = Field(default=WOLFRAM, description="Address of the WolframAlpha tool.")


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of the available task sets.

    Args:
        name: "rewoo".
        settings: `judge` scores answers; its `options` are `Options`.

    Raises:
        ConfigError: An option is unknown, or the judge cannot be used.
        SourceNotFoundError: No task set is there that can be scored.
        DataError: A file is not what it should be.
    """
    from evaluators.models.judge import Judge
    from evaluators.tasks.held_out.rewoo.evaluator import RewooEvaluator

    return RewooEvaluator(
        **asdict(settings.options_of(name)),
        root=settings.data,
        judge=Judge(settings.judge, name) if settings.judge else None,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
    )
