"""Top-level keys that the installed Axolotl knows.

Its schema silently drops every other key, for example a misspelt batch size.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from dataset_builders.settings import fields_of, models_of, suggestion

# Set by Axolotl's own commands before plugins see the recipe.
_INTERNAL = {"capabilities", "env_capabilities", "inference", "merge_lora", "axolotl_config_path"}
# Least similarity of a misspelt key; others are keys of another kind or version.
_MISSPELT = 0.85
_NEWER = {"use_dft": "0.20"}
"""Keys that change the loss, and the first version that knows them."""


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A top-level key that Axolotl would drop.

    Attributes:
        key: The key.
        message: The key and what may be meant, in one line.
        misspelt: Whether it is nearly a key that Axolotl knows, or one of a later Axolotl that
            changes the loss: training without it would be another run.
    """

    key: str
    message: str
    misspelt: bool


def unknown_keys(cfg: Mapping[str, Any], ignored: Iterable[str] = ()) -> list[UnknownKey]:
    """Return a recipe's top-level keys that neither Axolotl nor a registered plugin knows.

    Args:
        cfg: Recipe, its plugins registered with Axolotl.
        ignored: Keys for which there is another message.
    """
    from axolotl.utils.schemas.config import AxolotlConfigWCapabilities
    from axolotl.utils.schemas.datasets import SFTDataset

    known = _INTERNAL | _fields(AxolotlConfigWCapabilities) | _plugin_keys() | _command_keys()
    entry_keys = _fields(SFTDataset)
    found: list[UnknownKey] = []
    for key in sorted(set(map(str, cfg)) - known - set(ignored)):
        near = suggestion(key, known, _MISSPELT)
        line = f"{key}: unknown key, which Axolotl would drop{near}"
        needed = _NEWER.get(key) if cfg[key] else None
        if needed:
            line = (
                f"{key}: the installed Axolotl has no such key, expected Axolotl {needed} or later"
            )
        elif key in entry_keys and not near:
            line = f"{key}: a key of an entry of `datasets`, which the plugin replaces"
        found.append(UnknownKey(key, line, bool(near or needed)))
    return found


def unknown_nested_keys(cfg: Mapping[str, Any]) -> list[str]:
    """Return keys within Axolotl's own groups, such as `fsdp_config`, that its schema lacks.

    Groups that are passed on unchanged (`deepspeed`, `lr_scheduler_kwargs`) have no schema. What
    a group's validators accept in addition to its fields is unknown, so these only give warnings.
    """
    from axolotl.utils.schemas.config import AxolotlConfigWCapabilities

    found: list[str] = []
    for name, field in AxolotlConfigWCapabilities.model_fields.items():
        value = cfg.get(name)
        models = list(models_of(field.annotation))
        settings = [getattr(model, "model_config", {}) for model in models]
        open_ended = any(each.get("extra") == "allow" for each in settings)
        if not isinstance(value, dict) or not models or open_ended or _takes_any(field.annotation):
            continue
        known = set().union(*map(_fields, models))
        for key in sorted(set(map(str, value)) - known):
            near = suggestion(key, known)
            found.append(f"{name}.{key}: unknown key, which Axolotl would drop{near}")
    return found


def _takes_any(annotation: Any) -> bool:
    """Whether a field accepts any mapping besides a model."""
    return (
        annotation is dict
        or get_origin(annotation) is dict
        or any(_takes_any(part) for part in get_args(annotation))
    )


def _fields(model: Any) -> set[str]:
    """Return a model's field names and their aliases."""
    names = set(fields_of(model))
    for field in fields_of(model).values():
        for alias in (field.alias, field.validation_alias):
            choices: Sequence[Any] = getattr(alias, "choices", None) or (alias,)
            names |= {choice for choice in choices if isinstance(choice, str)}
    return names


def _plugin_keys() -> set[str]:
    from axolotl.integrations.base import PluginManager

    keys: set[str] = set()
    for name in PluginManager.get_instance().get_input_args():
        module, _, attribute = name.rpartition(".")
        keys |= _fields(getattr(importlib.import_module(module), attribute))
    return keys


def _command_keys() -> set[str]:
    """Return the flags of Axolotl's commands, which are merged with the recipe's keys."""
    from axolotl.cli import args

    kinds = [kind for kind in vars(args).values() if dataclasses.is_dataclass(kind)]
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}
