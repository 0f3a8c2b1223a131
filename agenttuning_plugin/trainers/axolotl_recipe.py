"""Check a recipe with the installed Axolotl."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.config.overrides import SECTION, apply_overrides
from agenttuning_plugin.config.rules import PLUGIN, REPLACED_KEYS, check_recipe
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.trainers.axolotl_keys import unknown_keys, unknown_nested_keys
from agenttuning_plugin.trainers.axolotl_settings import fill_in
from dataset_builders.errors import ConfigError
from dataset_builders.extras import needs_extra
from dataset_builders.masks.template_variables import set_template_variables

_UNREACHABLE = re.compile(
    r"couldn't connect|offline mode|LocalEntryNotFound|from 'https://huggingface.co", re.IGNORECASE
)
"""What transformers and the hub client write where there is no network."""

IMPORT = "plugin import"
"""What a plugin that cannot be imported is found under: then Axolotl may be missing too."""


def disable_telemetry() -> None:
    """Turn Axolotl's telemetry off in this process: nothing is trained here.

    Effective before Axolotl is imported for the first time.
    """
    os.environ.update(AXOLOTL_DO_NOT_TRACK="1", DO_NOT_TRACK="1")


def check_plugins(cfg: dict[str, Any]) -> Iterator[Finding]:
    """Check that the recipe's plugins can be imported."""
    disable_telemetry()
    names = cfg.get("plugins") or []
    names = [names] if isinstance(names, str) else [str(name) for name in names]
    if PLUGIN not in names:
        yield Finding("plugins", f"plugins: found {names}, expected {PLUGIN} among them", "error")
    wrong = False
    for name in names:
        try:
            _import_plugin(name)
        except (ImportError, AttributeError, ValueError) as error:
            # Axolotl 0.19 trains without such a plugin, later releases stop.
            wrong = True
            yield Finding(IMPORT, f"plugins: {name} cannot be imported: {error}", "error")
    if names and not wrong:
        yield Finding("plugins", ", ".join(names))


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


class AxolotlCheck:
    """Compares a recipe with Axolotl's schema.

    Attributes:
        validated: The recipe as Axolotl's commands would have it, once `validate` has found
            nothing wrong; none before.
    """

    def __init__(self, cfg: dict[str, Any]) -> None:
        """Register the recipe's plugins, which may add keys.

        Args:
            cfg: The recipe, its overrides applied.
        """
        disable_telemetry()
        from axolotl.integrations.base import PluginManager
        from axolotl.utils.dict import DictDefault

        self._cfg = DictDefault(cfg)
        self._manager = PluginManager.get_instance()
        for name in cfg.get("plugins") or []:
            self._manager.register(str(name))
        self.validated: Any = None

    def unknown_keys(self) -> Iterator[Finding]:
        """Return top-level keys that Axolotl would drop."""
        for key in unknown_keys(self._cfg, ignored={SECTION, *REPLACED_KEYS}):
            yield Finding("keys", key.message, "error")
        for line in unknown_nested_keys(self._cfg):
            yield Finding("keys", line, "warning")

    def validate(self, *, sound: bool) -> Iterator[Finding]:
        """Validate the recipe with Axolotl.

        Args:
            sound: Whether the plugin's own rules found nothing: else keys that it refuses are
                left out, so that only what Axolotl itself refuses is found here.
        """
        from axolotl import __version__
        from axolotl.cli.config import gpu_capabilities
        from axolotl.utils.config import validate_config
        from pydantic import ValidationError

        for key in () if sound else REPLACED_KEYS:
            self._cfg.pop(key, None)
        for name, plugin in self._manager.plugins.items():
            if name != PLUGIN:
                plugin.register(self._cfg)
        if PLUGIN in self._manager.plugins:
            fill_in(self._cfg)
        capabilities, environment = gpu_capabilities()
        try:
            validated = validate_config(
                self._cfg, capabilities=capabilities, env_capabilities=environment
            )
        except ValidationError as error:
            for item in error.errors():
                where = ".".join(map(str, item["loc"]))
                if where.startswith("agenttuning"):
                    continue  # reported by the section's own check
                message = str(item["msg"]).removeprefix("Value error, ")
                message = " ".join(message.split())
                yield Finding("Axolotl", f"{where}: {message}" if where else message, "error")
            return
        except ValueError as error:
            yield Finding("Axolotl", " ".join(str(error).split()), "error")
            return
        self.validated = validated
        yield Finding("Axolotl", f"{__version__} accepts it")

    def normalize(self) -> Iterator[Finding]:
        """Derive the remaining settings, as Axolotl's commands do, also from the model."""
        from axolotl.utils.config import normalize_config

        try:
            normalize_config(self.validated)
        except Exception as error:
            # The hub client, transformers and Axolotl raise errors of many libraries.
            detail = f"base_model: its config cannot be read here: {one_line(error)}"
            yield Finding("model", detail, "warning")

    def tokenizer(self) -> Any:
        """Load the run's tokenizer as Axolotl does; the template's variables are not set yet.

        Raises:
            ConfigError: It cannot be loaded here, as offline.
        """
        from axolotl.loaders import load_tokenizer

        cfg = self.validated
        cfg.tokenizer_config = cfg.tokenizer_config or cfg.base_model_config or cfg.base_model
        try:
            return load_tokenizer(cfg)
        except Exception as error:
            raise ConfigError(f"the tokenizer cannot be loaded here: {one_line(error)}") from error


def read_for_run(path: Path) -> tuple[Any, Any]:
    """Return a recipe's settings and tokenizer as in a run.

    Raises:
        ConfigError: The recipe is invalid; names all problems.
        MissingExtraError: Axolotl is not installed.
        SourceNotFoundError: There is no such recipe.
    """
    cfg = read_recipe(path)
    apply_overrides(cfg)
    section = check_recipe(cfg)
    with needs_extra("axolotl"):
        axolotl = AxolotlCheck(cfg)
    found = [*check_plugins(cfg), *axolotl.unknown_keys(), *axolotl.validate(sound=True)]
    if wrong := [finding.detail for finding in found if finding.level == "error"]:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    list(axolotl.normalize())
    tokenizer = axolotl.tokenizer()
    set_template_variables(tokenizer, section.chat_template_kwargs)
    return axolotl.validated, tokenizer


def one_line(error: BaseException) -> str:
    """Return an error's text in one line, truncated: some libraries write a page."""
    if _UNREACHABLE.search(str(error)):
        return "not in the hub's cache, and the hub is not reachable from here"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
