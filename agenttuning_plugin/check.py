"""`agenttuning check`: why a recipe would not train what it says.

Axolotl 0.19 trains without a plugin that it cannot import, so the question has to be asked
from outside. The cheap checks come first; Axolotl's own validation, where it is
installed, comes last.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.overrides import apply_overrides
from agenttuning_plugin.quiet import silenced
from agenttuning_plugin.recipe_rules import PLUGIN, check_recipe
from agenttuning_plugin.recipes import read_recipe
from dataset_builders.environments import load_environment
from dataset_builders.errors import AgentTuningError, ConfigError, MissingExtraError
from dataset_builders.masks.chat_templates import load_template
from dataset_builders.reading.files import looks_local
from dataset_builders.reading.sources import located


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked and found in order.

    Attributes:
        what: What was checked.
        detail: What was found.
    """

    what: str
    detail: str


def check(path: Path) -> list[Finding]:
    """Check a recipe.

    Returns:
        What was found in order.

    Raises:
        AgentTuningError: The first thing that is wrong, in one line that names the
            recipe, the key, what was found and what was expected.
    """
    try:
        with silenced():
            return _check(path)
    except AgentTuningError as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _check(path: Path) -> list[Finding]:
    cfg = read_recipe(path)
    apply_overrides(cfg)
    findings = [_check_plugins(cfg)]
    section = check_recipe(cfg)
    findings.append(Finding("section", f"agenttuning: eta {section.eta}"))
    if section.chat_template:
        load_template(section.chat_template)
        findings.append(Finding("chat template", section.chat_template))
    for name, sources in (("agent", section.agent), ("general", section.general)):
        for source in sources:
            findings.append(_check_source(name, source.spec()))
    for config in section.evaluators:
        if config.type == "agent_task":
            tasks = load_environment(config.environment).task_ids(config.split)
            if config.num_tasks > len(tasks):
                raise ConfigError(
                    f"agenttuning.evaluators: num_tasks: found {config.num_tasks}, expected at "
                    f"most {len(tasks)} for {config.environment}/{config.split}"
                )
            detail = f"{config.environment}/{config.split}, {config.num_tasks} tasks"
            findings.append(Finding("evaluator", detail))
    findings.append(_check_with_axolotl(cfg))
    return findings


def _check_plugins(cfg: dict[str, Any]) -> Finding:
    names = cfg.get("plugins") or []
    if PLUGIN not in names:
        raise ConfigError(f"plugins: found {names}, expected {PLUGIN} among them")
    for name in names:
        try:
            _import_plugin(str(name))
        except (ImportError, AttributeError, ValueError) as error:
            # Axolotl 0.19 trains without such a plugin, later releases stop.
            raise MissingExtraError(f"plugins: {name} cannot be imported: {error}") from error
    return Finding("plugins", ", ".join(names))


def _import_plugin(name: str) -> None:
    """Import a plugin as Axolotl does: by its own name, then among Axolotl's integrations."""
    module, _, attribute = name.rpartition(".")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        try:
            loaded = importlib.import_module(f"axolotl.integrations.{module}")
        except ModuleNotFoundError:
            raise error from None
    getattr(loaded, attribute)


def _check_source(name: str, spec: Any) -> Finding:
    if looks_local(spec.path) or Path(spec.path).exists():
        files = located(spec).files
        return Finding(f"{name} source", f"{spec.path}, {len(files)} file(s)")
    return Finding(f"{name} source", f"{spec.path}, fetched from the hub when training starts")


def _check_with_axolotl(cfg: dict[str, Any]) -> Finding:
    from axolotl import __version__
    from axolotl.cli.config import gpu_capabilities, prepare_plugins
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from pydantic import ValidationError

    wrapped = DictDefault(cfg)
    prepare_plugins(wrapped)
    capabilities, environment = gpu_capabilities()
    try:
        validate_config(wrapped, capabilities=capabilities, env_capabilities=environment)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{where}: {message}" if where else message) from error
    return Finding("Axolotl", f"{__version__} accepts it")
