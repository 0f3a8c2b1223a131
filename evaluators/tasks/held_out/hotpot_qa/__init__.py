"""HotpotQA with ReAct: search, look up, answer (docs/tasks/held-out/hotpot-qa.md)."""

from __future__ import annotations

from dataset_builders.errors import ConfigError
from evaluators.evaluator import Evaluator
from evaluators.tasks.registry import SuiteSettings


def make(name: str, settings: SuiteSettings) -> Evaluator:
    """Create the evaluator of the 300 questions.

    Args:
        name: "hotpot_qa".
        settings: Its `options` may have `mode` ("chat" or "completion") and arguments of
            `HotpotQaEnvironment`, such as `store`.

    Raises:
        ConfigError: An option is unknown or has another value.
        SourceNotFoundError: The questions are missing.
        DataError: They are invalid.
    """
    from evaluators.tasks.held_out import load_held_out
    from evaluators.tasks.held_out.hotpot_qa.evaluator import MODES, HotpotQaEvaluator

    options = dict(settings.options.get(name, {}))
    mode = options.pop("mode", MODES[0])
    if mode not in MODES:
        raise ConfigError(f"{name}: mode: found {mode!r}, expected {' or '.join(MODES)}")
    data = options.pop("data", settings.data and f"{settings.data}/hotpotqa")
    environment = load_held_out(name, data=data, **options)
    return HotpotQaEvaluator(
        environment,
        mode=mode,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        oracle=settings.oracle,
    )
