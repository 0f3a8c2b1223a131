"""Prepares sources before they are read: failed episodes are added, and turns chosen."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.training_data.made_sources import MakeContext, MakePlan
from dataset_builders.collection.attempts import stored_collections
from dataset_builders.collection.conversations import write_jsonl
from dataset_builders.collection.marked import Markers, read_marked
from dataset_builders.collection.state_changes import changed_turns, collection_of
from dataset_builders.conversation import Conversation
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.errors import ConfigError
from dataset_builders.instructions.critical_turns import (
    CriticalTurnsReport,
    critical_turns,
    num_requests,
)
from dataset_builders.rollouts.threads import run_in_thread
from dataset_builders.settings import fields_of
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from dataset_builders.sources.made import PREPARED, write_provenance
from dataset_builders.sources.spec import BEFORE_READING, SourceSpec
from dataset_builders.sources.turn_file import write_turn_file
from dataset_builders.sources.turn_selection import BEFOREHAND, JUDGE, STATE_CHANGING

if TYPE_CHECKING:
    from dataset_builders.instructions.run_io import Writer

LOG = logging.getLogger("axolotl.agenttuning")

VERSION = 1
"""Increased when what is prepared from the same inputs changes."""

DATA = "data/prepared.jsonl"
_MARKED = "marked"
_NOT_MARKED = ("format", "data_files", "revision", "min_reward", "clean")
_LATER = ("train_on", "reasoning", "rows", "keep_last_turns", "calls_as_text", "weight", "vary")


class PreparedMaker:
    """See `made_sources.Maker`; a recipe is the source itself."""

    def inputs(self, recipe: SourceSpec, context: MakeContext) -> dict[str, Any]:
        """See `Maker.inputs`.

        Raises:
            ConfigError: A setting is missing, or two exclude each other.
        """
        del context
        _check(recipe)
        settings = {name: getattr(recipe, name) for name in ("failed", "limit", "splits")}
        if recipe.failed == _MARKED:
            names = ("failed_marker", "success_marker", "failed_limit")
            settings |= {name: getattr(recipe, name) for name in names}
        else:
            settings["source"] = resolve_source(_plain(recipe)).fingerprint
        if recipe.failed == _MARKED or recipe.train_on == STATE_CHANGING:
            folder = _collection(recipe)
            settings["collections"] = [each.digest() for each in stored_collections(folder)]
        settings["train_on"] = recipe.train_on if recipe.train_on in BEFOREHAND else ""
        if recipe.train_on == JUDGE:
            settings |= {name: getattr(recipe, name) for name in ("judge_model", "judge_share")}
        return {"version": VERSION, **settings}

    def make(self, recipe: SourceSpec, context: MakeContext, folder: Path) -> None:
        """See `Maker.make`."""
        conversations, facts = _read(recipe)
        write_jsonl(folder / DATA, conversations)
        if recipe.train_on == STATE_CHANGING:
            facts |= _state_changing(recipe, conversations, folder)
        elif recipe.train_on == JUDGE:
            facts |= _judged(recipe, conversations, folder)
        LOG.info("%s: prepared: %s", recipe.path, facts)
        write_provenance(folder, {"kind": PREPARED, **self.inputs(recipe, context), **facts})

    def plan(self, recipe: SourceSpec, context: MakeContext) -> MakePlan:
        """See `Maker.plan`."""
        del context
        conversations, facts = _read(recipe)
        detail = f"{recipe.path}: {len(conversations):,} conversations"
        for task, counts in facts.get(_MARKED, {}).items():
            detail += f"; {task}: {counts['solved']:,} solved, {counts['failed']:,} failed"
        if recipe.train_on != JUDGE:
            return MakePlan(0, None, detail)
        requests = num_requests(conversations)
        return MakePlan(requests, None, f"{detail}; {requests:,} requests to {recipe.judge_model}")

    def stand_in(self, recipe: SourceSpec) -> dict[str, Any]:
        """See `Maker.stand_in`."""
        plain = replace(recipe, train_on="all", **BEFORE_READING)
        return {each.name: getattr(plain, each.name) for each in fields(plain)}


def _check(spec: SourceSpec) -> None:
    if spec.train_on == JUDGE and not spec.judge_model:
        raise ConfigError(f"{spec.path}: train_on: judge: judge_model: missing, expected its name")
    if spec.vary is not None and spec.train_on in BEFOREHAND:
        raise ConfigError(
            f"{spec.path}: vary: found with train_on: {spec.train_on}, expected only one: the "
            "turns are chosen in the dialogues as they were played"
        )
    if spec.failed != _MARKED:
        return
    for name in _NOT_MARKED:
        if getattr(spec, name):
            raise ConfigError(
                f"{spec.path}: {name}: found with failed: marked, expected only `splits` and "
                "`limit`: the episodes are read from the collection's database"
            )


def _collection(spec: SourceSpec) -> Path:
    marked = spec.failed == _MARKED
    setting = f"failed: {_MARKED}" if marked else f"train_on: {STATE_CHANGING}"
    return collection_of(Path(spec.path).expanduser(), setting)


def _plain(spec: SourceSpec) -> SourceSpec:
    """Return the source as it is read here: what later steps change is left to them."""
    known = fields_of(SourceSpec)
    defaults: dict[str, Any] = {name: known[name].default for name in _LATER}
    return replace(spec, **defaults, **BEFORE_READING)


def _read(spec: SourceSpec) -> tuple[list[Conversation], dict[str, Any]]:
    """Return the conversations of a source, and what is to be recorded of them."""
    _check(spec)
    if spec.failed != _MARKED:
        conversations, report = load_source(resolve_source(_plain(spec)))
        return conversations, {"read": {"records": report.read, "kept": report.kept}}
    markers = Markers(spec.success_marker, spec.failed_marker, spec.failed_limit)
    folder = _collection(spec)
    conversations, reports = read_marked(folder, markers, spec.splits)
    counts = {task: report.to_dict() for task, report in reports.items()}
    return conversations[: spec.limit], {_MARKED: counts}


def _state_changing(
    spec: SourceSpec, conversations: list[Conversation], folder: Path
) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    found = list(changed_turns(collection_of(Path(spec.path).expanduser()), conversations, counts))
    return {"state_changing": dict(counts), "turns_sha256": write_turn_file(folder, found)}


def _judged(spec: SourceSpec, conversations: list[Conversation], folder: Path) -> dict[str, Any]:
    report = CriticalTurnsReport()
    replies = folder / "made"
    # In a thread: a notebook has an event loop of its own.
    chosen = run_in_thread(
        lambda: critical_turns(conversations, _judge(spec), replies, spec.judge_share, report)
    )
    pairs = zip(conversations, chosen, strict=True)
    return {
        "judge": {"conversations": dict(report.conversations), "turns": dict(report.turns)},
        "turns_sha256": write_turn_file(folder, pairs),
    }


def _judge(spec: SourceSpec) -> Writer:
    from dataset_builders.endpoints.requests import Sampling
    from dataset_builders.instructions.run_io import Writer

    assert spec.judge_model is not None  # `_check` has seen to it.
    endpoint = Endpoint(spec.judge_model, spec.judge_base_url, spec.judge_api_key_env)
    return Writer(endpoint, Sampling(temperature=0.0))
