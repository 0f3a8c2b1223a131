"""`agenttuning check`: validate a recipe completely before training.

Axolotl 0.19 and 0.20 train without a plugin that they cannot import, so the recipe has to be
checked from outside. Everything is checked in one pass, by the functions that training uses.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.config.findings import Finding, errors_in, guarded
from agenttuning_plugin.config.overrides import apply_overrides
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.rules import problems, section_problems
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.preflight.consistency import check_kernels, check_tool_form
from agenttuning_plugin.preflight.data import check_data
from agenttuning_plugin.preflight.endpoint import check_endpoint
from agenttuning_plugin.trainers.axolotl_recipe import IMPORT, AxolotlCheck, check_plugins
from agenttuning_plugin.trainers.axolotl_settings import encoding_of
from dataset_builders.errors import AgentTuningError
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.stdio import silenced

if TYPE_CHECKING:
    from agenttuning_plugin.evaluation.from_config import Config


def check(path: Path) -> list[Finding]:
    """Check a recipe.

    Returns:
        All findings, in order; each error states in one line what was found and what was expected.
    """
    with silenced():
        try:
            cfg = read_recipe(path)
            apply_overrides(cfg)
        except AgentTuningError as error:
            return errors_in("recipe", [" ".join(str(error).split())])
        return list(_check(cfg))


def _check(cfg: dict[str, Any]) -> Iterator[Finding]:
    plugins = list(check_plugins(cfg))
    yield from plugins
    section, wrong = section_problems(cfg)
    yield from errors_in("section", wrong)
    if section:
        yield Finding("section", f"agenttuning: eta {section.eta}")
    rules = problems(cfg, section)
    yield from errors_in("rules", rules)
    if section and section.chat_template:
        name = section.chat_template
        yield from guarded("chat template", lambda: _template(name))
    axolotl = None
    if not any(finding.what == IMPORT for finding in plugins):
        axolotl = AxolotlCheck(cfg)
        yield from axolotl.unknown_keys()
        if all(finding.level == "ok" for finding in plugins):
            yield from axolotl.validate(sound=bool(section) and not rules)
        if axolotl.validated is not None:
            yield from check_kernels(axolotl.validated)
    if section:
        tokenizer = yield from _tokenizer(section, axolotl)
        encoding = encoding_of(axolotl.validated, section) if axolotl and tokenizer else None
        yield from check_data(section, tokenizer, encoding)
        if encoding:
            yield from guarded("tool calls", lambda: check_tool_form(section, tokenizer, encoding))
        yield from _evaluators(section)
        if section.endpoint:
            yield from check_endpoint(
                cfg, section.endpoint, tokenizer, section.chat_template_kwargs
            )


def _template(name: str) -> Iterator[Finding]:
    load_template(name)
    yield Finding("chat template", name)


def _tokenizer(
    section: AgentTuningSection, axolotl: AxolotlCheck | None
) -> Generator[Finding, None, Any]:
    """Load the run's tokenizer with its template's variables; None if it cannot be loaded."""
    if axolotl is None or axolotl.validated is None:
        return None
    yield from axolotl.normalize()
    try:
        tokenizer = axolotl.tokenizer()
    except AgentTuningError as error:
        yield Finding("tokenizer", f"{error}; no row was encoded", "warning")
        return None
    try:
        set_template_variables(tokenizer, section.chat_template_kwargs)
    except AgentTuningError as error:
        yield Finding("chat template", f"agenttuning.{error}", "error")
        return None
    return tokenizer


def _evaluators(section: AgentTuningSection) -> Iterator[Finding]:
    """Create each evaluator as in a run: its requirements must be met here."""
    from evaluators.tasks.general_loss import GeneralLossEvaluator

    primary: dict[str, str] = {}
    for config in section.evaluators:
        if config.type == "general_loss":
            primary[config.key] = GeneralLossEvaluator.primary
            yield Finding("evaluator", f"general_loss, {section.holdout} conversations")
            continue
        yield from guarded(f"evaluator {config.key}", lambda: _evaluator(config, primary))  # noqa: B023
    yield from guarded("evaluation", lambda: _policy(section, primary))


def _evaluator(config: Config, primary: dict[str, str]) -> Iterator[Finding]:
    from agenttuning_plugin.evaluation.from_config import make_evaluator

    primary[config.key] = make_evaluator(config, None).primary
    detail = config.key
    if isinstance(config, AgentTaskConfig):
        detail = f"{config.environment}/{config.split}, {config.num_tasks} tasks"
    yield Finding("evaluator", detail)


def _policy(section: AgentTuningSection, primary: dict[str, str]) -> list[Finding]:
    section.check_evaluation(primary)
    return []
