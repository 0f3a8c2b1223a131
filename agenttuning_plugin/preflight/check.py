"""`agenttuning check`: validate a recipe completely before training.

Axolotl 0.19 and 0.20 train without a plugin that they cannot import, so the recipe has to be
checked from outside. Everything is checked in one pass, by the functions that training uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.findings import Finding, errors_in, guarded
from agenttuning_plugin.config.overrides import apply_overrides
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.config.rules import problems, section_problems
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.config.sweep import BLOCK, block_of
from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.recipe import stated_processes
from agenttuning_plugin.preflight.axolotl_plan import (
    check_precision,
    hardware_of,
    precision_of,
    saving_of,
)
from agenttuning_plugin.preflight.consistency import check_kernels
from agenttuning_plugin.preflight.endpoint import check_endpoint
from agenttuning_plugin.preflight.loss_function import recipe_loss
from agenttuning_plugin.preflight.planned import PlannedRun, check_run
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.trainers.axolotl_recipe import IMPORT, AxolotlCheck, check_plugins
from agenttuning_plugin.trainers.axolotl_settings import run_settings
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import AgentTuningError
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.masks.template_variables import set_template_variables
from dataset_builders.stdio import silenced


def check(path: Path) -> list[Finding]:
    """Check a recipe on a sample of its data; see `recipe_report`."""
    return recipe_report(path).findings


def recipe_report(
    path: Path,
    *,
    full: bool = False,
    processes: int | None = None,
    device: Device | None = None,
) -> Report:
    """Check a recipe.

    Args:
        path: An Axolotl recipe.
        full: Whether to read and encode all data, hub data too; the run's cache is used and filled.
        processes: Processes that training is started with; none: see `launched_processes`.
        device: Device that training will run on; none: the one found here.

    Returns:
        Findings and figures; each error states in one line what was found and what was expected.
    """
    report = Report(str(path), full)
    with silenced():
        try:
            cfg = read_recipe(path)
            apply_overrides(cfg)
            report.add("recipe", _sweep(cfg))
        except AgentTuningError as error:
            report.add("recipe", errors_in("recipe", [" ".join(str(error).split())]))
        else:
            _check(cfg, report, processes or launched_processes(path), device)
    return report


def _sweep(cfg: dict[str, Any]) -> list[Finding]:
    """Check and remove the block `sweep:`; what remains is the recipe that is varied."""
    if BLOCK not in cfg:
        return []
    varied = [*block_of(cfg).set, *block_of(cfg).arms]
    del cfg[BLOCK]
    detail = f"varies {', '.join(varied) or 'seeds'}; `agenttuning sweep --dry-run` checks each arm"
    return [Finding("sweep", detail)]


def _check(cfg: dict[str, Any], report: Report, processes: int, device: Device | None) -> None:
    precision = precision_of(cfg)
    section, axolotl = _recipe(cfg, report)
    if section is None:
        return
    planned = PlannedRun(section)
    if axolotl is not None and axolotl.validated is not None:
        report.add("recipe", axolotl.normalize())
        found: list[Any] = []
        report.add("data", _tokenizer(section, axolotl, found))
        validated = axolotl.validated
        if validated.use_ray:
            processes = validated.ray_num_workers or processes
        if device is None:  # These are about training on this machine.
            report.add("device", check_kernels(validated))
            report.add("device", check_precision(validated, precision))
        planned = PlannedRun(
            section,
            next(iter(found), None),
            _settings(validated, section, report.full, processes),
            hardware_of(validated, precision, processes, device),
            saving_of(validated),
        )
    check_run(planned, report)
    if section.endpoint:
        kwargs = section.chat_template_kwargs
        report.add("evaluators", check_endpoint(cfg, section.endpoint, planned.tokenizer, kwargs))


def _recipe(
    cfg: dict[str, Any], report: Report
) -> tuple[AgentTuningSection | None, AxolotlCheck | None]:
    """Check the recipe's keys; return its section and what Axolotl makes of it, where valid."""
    plugins = list(check_plugins(cfg))
    report.add("recipe", plugins)
    section, wrong = section_problems(cfg)
    report.add("recipe", errors_in("section", wrong))
    if section:
        report.add("recipe", [Finding("section", f"agenttuning: eta {section.eta}")])
    report.add("recipe", recipe_loss(cfg))
    rules = problems(cfg, section)
    report.add("recipe", errors_in("rules", rules))
    if section and section.chat_template:
        name = section.chat_template
        report.add("recipe", guarded("chat template", lambda: _template(name)))
    if any(finding.what == IMPORT for finding in plugins):
        return section, None
    axolotl = AxolotlCheck(cfg)
    report.add("recipe", axolotl.unknown_keys())
    if all(finding.level == "ok" for finding in plugins):
        report.add("recipe", axolotl.validate(sound=bool(section) and not rules))
    return section, axolotl


def _template(name: str) -> Iterator[Finding]:
    load_template(name)
    yield Finding("chat template", name)


def _tokenizer(
    section: AgentTuningSection, axolotl: AxolotlCheck, found: list[Any]
) -> Iterator[Finding]:
    """Load the run's tokenizer with its template's variables, into a list."""
    try:
        tokenizer = axolotl.tokenizer()
    except AgentTuningError as error:
        yield Finding("tokenizer", f"{error}; no row was encoded", "warning")
        return
    try:
        set_template_variables(tokenizer, section.chat_template_kwargs)
    except AgentTuningError as error:
        yield Finding("chat template", f"agenttuning.{error}", "error")
        return
    found.append(tokenizer)


def _settings(cfg: Any, section: AgentTuningSection, full: bool, processes: int) -> RunSettings:
    from axolotl.common.const import DEFAULT_DATASET_PREPARED_PATH

    cache = Path(cfg.dataset_prepared_path or DEFAULT_DATASET_PREPARED_PATH) if full else None
    settings = run_settings(cfg, section, cache)
    # Processes of one tensor- or context-parallel group share their data.
    shared = (cfg.tensor_parallel_size or 1) * (cfg.context_parallel_size or 1)
    world = max(settings.batch.world, processes // shared)
    return replace(settings, batch=replace(settings.batch, world=world))


def launched_processes(path: Path) -> int:
    """Return the number of processes that training is started with.

    It is what the file's comments say, as `accelerate launch --num_processes 8`; otherwise one
    per GPU of this machine.

    Args:
        path: A recipe or script.
    """
    text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
    if stated := stated_processes(text):
        return stated
    try:
        import torch
    except ImportError:  # nothing is trained here
        return 1
    return max(1, torch.cuda.device_count())
