"""Make the sources of a section that must be made before training, such as `self_replay`.

A made source is a folder within the folder of prepared data, named by a hash of everything that
its data depend on. The first process that needs it makes it under a lock, and the others wait. A
maker is resumable: what a killed process has paid for lies in the same folder and is used again.
`agenttuning check` makes nothing; it plans, see `plan_sources`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

from filelock import FileLock

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.sources.made import KINDS, PREPARED, PROVENANCE, kind_of
from dataset_builders.sources.spec import READ_AS, SourceSpec
from dataset_builders.storage import CACHE

LOG = logging.getLogger("axolotl.agenttuning")

FOLDER = "agenttuning/made"
"""Folder of made sources within the folder of prepared data."""

MAKERS = {
    "recover": "agenttuning_plugin.training_data.recover_maker:RecoverMaker",
    "self_replay": "agenttuning_plugin.training_data.self_replay_maker:SelfReplayMaker",
    "refusals": "agenttuning_plugin.training_data.refusals_maker:RefusalsMaker",
    PREPARED: "agenttuning_plugin.training_data.prepared_maker:PreparedMaker",
}
"""The maker of each of `made.KINDS` and of `made.PREPARED`, imported on first use."""


@dataclass(frozen=True, slots=True)
class MakeContext:
    """Properties of the run that makers need.

    Attributes:
        folder: Folder of made sources.
        base_model: Folder or hub id of the model that is trained.
        tokenizer: The run's tokenizer, its chat template and variables in place.
        end_of_turn: Tokens beside eos that end a turn.
    """

    folder: Path
    base_model: str
    tokenizer: Any
    end_of_turn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MakePlan:
    """Estimated work of making a source.

    Attributes:
        requests: Number of model requests, at most; 0 if no model is used.
        seconds: Estimated duration, or None if it cannot be estimated here.
        detail: What is made, in one line.
    """

    requests: int
    seconds: float | None
    detail: str


class Maker(Protocol):
    """Makes sources of one kind.

    `recipe` is the value of the source's key, such as a mapping; of `PREPARED` the source itself.
    """

    def inputs(self, recipe: Any, context: MakeContext) -> dict[str, Any]:
        """Return everything that the data depend on, JSON-ready: digests, settings, no paths."""

    def make(self, recipe: Any, context: MakeContext, folder: Path) -> None:
        """Write the source to a folder: `data/`, and `made.write_provenance` at the very end.

        The folder may hold what a killed process left; nothing is to be paid for twice.
        """

    def plan(self, recipe: Any, context: MakeContext) -> MakePlan:
        """Estimate the work of making it, without running a model."""

    def stand_in(self, recipe: Any) -> dict[str, Any]:
        """Return fields of a `SourceSpec` of similar rows, which a check reads in its place."""


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source that a run would make.

    Attributes:
        side: "agent" or "general".
        kind: One of `made.KINDS`.
        made: Whether it is made already.
        plan: What making it takes.
    """

    side: str
    kind: str
    made: bool
    plan: MakePlan


def context_of(settings: RunSettings, tokenizer: Any) -> MakeContext:
    """Return what makers need of a run with these settings and tokenizer."""
    cache = settings.made or settings.cache or (CACHE / "prepared").expanduser()
    base = settings.base_model or str(getattr(tokenizer, "name_or_path", "") or "")
    return MakeContext(cache / FOLDER, base, tokenizer, settings.encoding.end_of_turn)


def make_sources(section: AgentTuningSection, context: MakeContext) -> AgentTuningSection:
    """Make the sources of a section that are not made yet.

    Args:
        section: The recipe's section; only the sides that the run reads are made.
        context: See there.

    Returns:
        The section with the folders of the made sources; the same object if there are none.

    Raises:
        AgentTuningError: A source cannot be made.
    """
    return _replaced(section, lambda side, spec: made_source(spec, context))


def plan_sources(
    section: AgentTuningSection, context: MakeContext
) -> tuple[AgentTuningSection, list[PlannedSource]]:
    """Plan the sources of a section that must be made, without making any.

    Returns:
        The section to read instead: with made folders, and a stand-in for each source that is not
        made yet; and what was planned.

    Raises:
        AgentTuningError: A source could not be made.
    """
    found: list[PlannedSource] = []

    def planned(side: str, spec: SourceSpec) -> SourceSpec:
        kind = kind_of(spec)
        recipe, maker = recipe_of(spec, kind), maker_of(kind)
        folder = folder_of(spec, context)
        is_made = (folder / PROVENANCE).is_file()
        found.append(PlannedSource(side, kind, is_made, maker.plan(recipe, context)))
        if not is_made:
            return _stand_in(spec)
        made = _at(spec, kind, folder)
        return planned(side, made) if kind_of(made) else made

    return _replaced(section, planned), found


def stand_ins(section: AgentTuningSection) -> AgentTuningSection:
    """Return the section with a stand-in for each source that must be made, made or not."""
    return _replaced(section, lambda _, spec: _stand_in(spec))


def folder_of(spec: SourceSpec, context: MakeContext) -> Path:
    """Return the folder of a made source; its name has a hash of the source's inputs.

    Raises:
        AgentTuningError: An input, such as the prompts, cannot be read.
    """
    kind = kind_of(spec)
    inputs = {"kind": kind, **maker_of(kind).inputs(recipe_of(spec, kind), context)}
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    return context.folder / key / kind


def maker_of(kind: str) -> Maker:
    """Return the maker of a kind of source."""
    module, _, name = MAKERS[kind].partition(":")
    return cast(Maker, getattr(importlib.import_module(module), name)())


def recipe_of(spec: SourceSpec, kind: str) -> Any:
    """Return what a source of a kind is made by; see `Maker`."""
    return spec if kind == PREPARED else getattr(spec, kind)


def has_unmade(section: AgentTuningSection) -> bool:
    """Whether a section has sources that must be made."""
    return any(kind_of(spec) for spec in [*section.agent, *section.general])


def _replaced(
    section: AgentTuningSection, change: Callable[[str, SourceSpec], SourceSpec]
) -> AgentTuningSection:
    if not has_unmade(section):
        return section
    sides = {
        side: [change(side, spec) if kind_of(spec) else spec for spec in getattr(section, side)]
        for side in section.sides_read()
    }
    return section.model_copy(update=sides)


def made_source(spec: SourceSpec, context: MakeContext) -> SourceSpec:
    """Return a source that can be read, made first if need be.

    Raises:
        AgentTuningError: It cannot be made.
    """
    while kind := kind_of(spec):
        spec = _made(spec, kind, context)
    return spec


def _made(spec: SourceSpec, kind: str, context: MakeContext) -> SourceSpec:
    folder = folder_of(spec, context)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        found = (folder / PROVENANCE).is_file()
        if not found:
            LOG.info("%s: making the source in %s", kind, folder)
            maker_of(kind).make(recipe_of(spec, kind), context, folder)
    LOG.info("%s: %s: %s", kind, "reused" if found else "made", folder)
    return _at(spec, kind, folder)


def _stand_in(spec: SourceSpec) -> SourceSpec:
    kind = kind_of(spec)
    fields: dict[str, Any] = {
        "weight": spec.weight,
        **maker_of(kind).stand_in(recipe_of(spec, kind)),
    }
    return SourceSpec(**fields)


def _at(spec: SourceSpec, kind: str, folder: Path) -> SourceSpec:
    """Return the source as a folder, without how it is made."""
    no_recipe: dict[str, Any] = dict.fromkeys(KINDS)
    if kind == PREPARED:
        no_recipe |= READ_AS
    return replace(spec, path=str(folder), **no_recipe)
