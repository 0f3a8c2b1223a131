"""Makes `recover` sources: replays a collection's failed episodes and continues them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from agenttuning_plugin.training_data.made_sources import LOG, MakeContext, MakePlan
from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.environments.references import code_digest, resolve
from dataset_builders.recovery.episodes import collection_digest
from dataset_builders.recovery.recover import count_failed, recover
from dataset_builders.recovery.worlds import own_references
from dataset_builders.sources.made import write_provenance
from dataset_builders.sources.recovery_settings import RecoverSettings

_PLACES = ("collection", "good", "environment", "data", "agentinstruct", "max_concurrency")
"""Settings that are represented by what lies there, or that the splices do not depend on."""

_VERSION = 1
"""Increased when the same collection gives other splices."""


class RecoverMaker:
    """See `made_sources.Maker`."""

    def inputs(self, recipe: RecoverSettings, context: MakeContext) -> dict[str, Any]:
        """See `Maker.inputs`."""
        del context  # No model takes part.
        given = {name: value for name, value in asdict(recipe).items() if name not in _PLACES}
        digests = {"collection": collection_digest(Path(recipe.collection).expanduser())}
        if recipe.good:
            digests["good"] = collection_digest(Path(recipe.good).expanduser())
        for name, reference in own_references(recipe).items():
            digests[f"environment {name}"] = code_digest(resolve(reference))
        return {"version": _VERSION, "settings": given, "sha256": digests}

    def make(self, recipe: RecoverSettings, context: MakeContext, folder: Path) -> None:
        """See `Maker.make`."""
        from tqdm import tqdm

        with tqdm(desc="recover", unit=" replays") as bar:
            result = recover(recipe, bar.update)
        write_jsonl(folder / "data" / "train.jsonl", result.conversations)
        for name, reason in result.refused.items():
            LOG.warning("recover: %s: left out: %s", name, reason)
        counts = {
            name: {key: value for key, value in found.items() if isinstance(value, int)}
            for name, found in result.report.items()
        }
        # Without messages, which may name places of this machine.
        made = {"environments": counts, "left_out": sorted(result.refused)}
        write_provenance(folder, {"kind": "recover", **self.inputs(recipe, context), **made})

    def plan(self, recipe: RecoverSettings, context: MakeContext) -> MakePlan:
        """See `Maker.plan`."""
        del context
        failed = count_failed(recipe)
        most = failed * recipe.max_tries
        detail = f"{recipe.collection}: {failed:,} failed episodes, at most {most:,} replays"
        return MakePlan(0, None, detail)

    def stand_in(self, recipe: RecoverSettings) -> dict[str, Any]:
        """See `Maker.stand_in`: the collection's successful episodes, in the same format."""
        return {"path": str(Path(recipe.collection).expanduser() / "messages")}
