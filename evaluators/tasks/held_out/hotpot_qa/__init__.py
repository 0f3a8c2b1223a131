"""HotpotQA with ReAct: search, look up, answer (docs/tasks/held-out/hotpot-qa.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dataset_builders.settings import options
from evaluators.evaluator import Evaluator
from evaluators.tasks.registry import SuiteSettings


@options
class Options:
    """Options of HotpotQA beside those of its environment."""

    mode: Literal["chat", "completion"] = Field(
        default="chat", description="The model's chat template, or bare text."
    )


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of the 300 questions.

    Args:
        name: "hotpot_qa".
        settings: Its `options` are `Options` and the arguments of `HotpotQaEnvironment`.

    Raises:
        ConfigError: An option is unknown or has another value.
        SourceNotFoundError: The questions are missing.
        DataError: They are invalid.
    """
    from evaluators.tasks.held_out import load_held_out
    from evaluators.tasks.held_out.hotpot_qa.evaluator import HotpotQaEvaluator

    given = {"data": settings.data and f"{settings.data}/hotpotqa"}
    given |= settings.environment_options(name)
    return HotpotQaEvaluator(
        load_held_out(name, **given),
        mode=settings.options_of(name).mode,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )
