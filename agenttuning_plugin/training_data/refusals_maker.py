"""Makes `refusals` sources; no model is used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agenttuning_plugin.training_data.made_sources import MakeContext, MakePlan
from dataset_builders.refusals.training import examples, inputs_of, write_refusals
from dataset_builders.sources.made import PROVENANCE, Refusals
from dataset_builders.storage import CACHE


class RefusalsMaker:
    """See `made_sources.Maker`."""

    def inputs(self, recipe: Refusals, context: MakeContext) -> dict[str, Any]:
        """See `Maker.inputs`."""
        del context
        return inputs_of(recipe)

    def make(self, recipe: Refusals, context: MakeContext, folder: Path) -> None:
        """See `Maker.make`."""
        del context
        write_refusals(recipe, folder)

    def plan(self, recipe: Refusals, context: MakeContext) -> MakePlan:
        """See `Maker.plan`."""
        del context
        return MakePlan(0, 0.0, f"{recipe.path}: {len(examples(recipe)):,} conversations")

    def stand_in(self, recipe: Refusals) -> dict[str, Any]:
        """Return the source itself, kept in the cache: writing it takes no model and no time."""
        key = hashlib.sha256(json.dumps(inputs_of(recipe), sort_keys=True).encode()).hexdigest()
        folder = CACHE.expanduser() / "refusals" / key[:16]
        if not (folder / PROVENANCE).is_file():
            write_refusals(recipe, folder)
        return {"path": str(folder)}
