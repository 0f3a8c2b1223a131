"""Check the swept keys with the installed Axolotl, which drops those that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from agenttuning_plugin.config.overrides import SECTION, path_of
from agenttuning_plugin.sweeps.plan import Arm
from dataset_builders.errors import ConfigError


def check_swept_keys(arms: Sequence[Arm]) -> None:
    """Check that every key in which the arms differ is one of Axolotl's.

    The section's keys are checked by `plan_arms`.

    Raises:
        ConfigError: Axolotl would drop a key, and the arms would not differ in it.
    """
    varied: dict[str, Any] = {}
    for arm in arms:
        varied |= {path_of(key)[0]: arm.recipe[path_of(key)[0]] for key in arm.changed}
    varied.pop(SECTION, None)
    if not varied:
        return
    cfg = {"plugins": arms[0].recipe.get("plugins") or [], **varied}
    # In a process of its own: this one stays small while arms train.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        unknown = pool.submit(_unknown, cfg).result()
    if unknown:
        raise ConfigError(f"swept keys: {'; '.join(unknown)}")


def _unknown(cfg: dict[str, Any]) -> list[str]:
    from agenttuning_plugin.trainers.axolotl_recipe import AxolotlCheck

    return [finding.detail for finding in AxolotlCheck(cfg).unknown_keys()]
