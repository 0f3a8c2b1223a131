"""Sources that are made before training: their settings, and the record of how one was made.

A source of a recipe names either a path or how its data are made, such as `self_replay`. A made
source is a folder with `data/` and the file `made/provenance.json`, which is part of the source's
fingerprint and of a run's manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dataset_builders.errors import DataError
from dataset_builders.settings import settings
from dataset_builders.sources.turn_file import has_turn_file
from dataset_builders.sources.turn_selection import BEFOREHAND
from dataset_builders.storage import replace_text

KINDS = ("self_replay", "recover", "refusals")
"""Keys of a source that say how its data are made."""

PREPARED = "prepared"
"""Kind of a source with a path that is read and written anew before training, because failed
episodes are added to it (`failed: marked`) or its turns chosen (`train_on`)."""

PROVENANCE = "made/provenance.json"
"""File of a made folder with everything that its data were made from."""

ReplayFilter = Literal["refusal", "repetition", "cut", "empty"]
"""Reason to drop a model's answer."""


@settings
class ReplayEndpoint:
    """A model behind an OpenAI-compatible server that answers the prompts of self-replay."""

    name: str = Field(min_length=1, description="Name of the model on the server.")
    base_url: str | None = Field(
        default=None,
        description="Base URL, such as `http://127.0.0.1:8000/v1`; default: OPENAI_BASE_URL, or "
        "OpenAI's.",
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Environment variable with the API key."
    )
    concurrency: int = Field(default=16, ge=1, description="Maximum concurrent requests.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Maximum prompt and completion tokens of all requests."
    )
    max_cost: float | None = Field(
        default=None, ge=0, description="Maximum cost of all requests; needs `prices`."
    )
    prices: str | None = Field(
        default=None,
        description="YAML file of prices per million tokens: `{MODEL: {input, output}}`.",
    )
    request: Mapping[str, Any] = Field(
        default_factory=dict,
        description="Extra request fields: a mapping such as `{chat_template_kwargs: "
        "{enable_thinking: false}}`; as an option, name=JSON, repeatable.",
    )


@settings
class SelfReplay:
    """The base model's own answers to the user turns of a chat source, as general data."""

    prompts: str = Field(
        min_length=1, description="Chat whose user turns are answered: file, folder or hub id."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum conversations, from the start; default: all."
    )
    history: Literal["own", "recorded"] = Field(
        default="own",
        description="What precedes a later user turn: `own`: the model's earlier answers; "
        "`recorded`: the recorded ones, one conversation per answer.",
    )
    temperature: float = Field(
        default=1.0,
        ge=0,
        description="Sampling temperature; 1: the model's own distribution; 0: greedy decoding, "
        "which forgets more (docs/studies/eta.md).",
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    seed: int = Field(default=0, description="Sampling seed.")
    max_new_tokens: int = Field(default=512, ge=1, description="Maximum tokens of an answer.")
    model: str | ReplayEndpoint = Field(
        default="base",
        description="Model that answers: `base`: the one that is trained; a folder or hub id; or "
        "a mapping for a server.",
    )
    filters: tuple[ReplayFilter, ...] = Field(
        default=("refusal", "repetition", "cut", "empty"),
        description="Answers that are dropped and counted: `refusal`, `repetition` (loops of "
        "words), `cut` (at the token limit), `empty`.",
    )
    batch_size: int = Field(
        default=32, ge=1, description="Maximum prompts per batch of a model in this process."
    )


OWN_REFUSALS = "own"
"""Value of `refusals`, and of its `path`, for the shipped examples."""


@settings
class Refusals:
    """Refusals of harmful requests, and answers to harmless ones like them."""

    path: str = Field(
        default=OWN_REFUSALS,
        min_length=1,
        description="`own`: the shipped examples; or a CSV, JSON Lines or Parquet file, folder or "
        "hub id with the columns `prompt`, `response` and, if not all are to be refused, `label`.",
    )
    setting: Literal["chat", "agent", "both"] = Field(
        default="both",
        description="`chat`, `agent` (as the task of an agent) or `both`.",
    )
    actions: Literal["text", "tools"] = Field(
        default="text",
        description="How an agent's actions are written: `text` or `tools` (native calls).",
    )


def refusals_of(value: Any) -> Any:
    """Return the settings of `refusals` given as `own` or a path alone; others unchanged."""
    return {"path": value} if isinstance(value, str) else value


def kind_of(spec: Any) -> str:
    """Return how a source is made, one of `KINDS` or `PREPARED`; "" if it can be read."""
    if kind := next((kind for kind in KINDS if getattr(spec, kind) is not None), ""):
        return kind
    chosen = spec.train_on in BEFOREHAND and not has_turn_file(spec.path)
    return PREPARED if spec.failed == "marked" or chosen else ""


def placeholder(kind: str) -> str:
    """Return the path that a source has before it is made."""
    return f"<{kind}>"


def with_placeholder(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source's values with a path.

    Raises:
        ValueError: It names a path and a way to make it, or two ways.
    """
    kinds = [kind for kind in KINDS if values.get(kind) is not None]
    if not kinds:
        return dict(values)
    path, values = _path_of(values, kinds)
    if len(kinds) > 1 or path not in (None, placeholder(kinds[0])):
        found = [*(["path"] if path is not None else []), *kinds]
        raise ValueError(f"found {' and '.join(found)}, expected one of them")
    return {**values, "path": placeholder(kinds[0])}


def _path_of(values: Mapping[str, Any], kinds: list[str]) -> tuple[Any, Mapping[str, Any]]:
    """Return the path and the values, where the path names the collection of `recover` without."""
    path, recipe = values.get("path"), values.get("recover")
    if kinds != ["recover"] or not isinstance(recipe, Mapping) or "collection" in recipe:
        return path, values
    return None, {**values, "recover": {**recipe, "collection": path} if path else recipe}


def write_provenance(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the record of how a folder was made; its presence says that the folder is complete.

    Args:
        folder: The made folder.
        content: JSON-ready; without paths of this machine, as it is part of fingerprints.
    """
    place = folder / PROVENANCE
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_text(place, json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def read_provenance(path: str) -> dict[str, Any] | None:
    """Return the record of how a source's folder was made; None for any other source.

    Args:
        path: Path or hub id of a source.

    Raises:
        DataError: The file holds no JSON object.
    """
    place = Path(path).expanduser() / PROVENANCE
    if not place.is_file():
        return None
    try:
        content = json.loads(place.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{place}: found {type(content).__name__}, expected an object")
    return content


def prepared_notes(made: Mapping[str, Any] | None) -> list[str]:
    """Return what was done to a prepared source, one line each, for a report.

    Args:
        made: From `read_provenance`; of other sources there is nothing to say.
    """
    made, lines = made or {}, []
    for task, counts in made.get("marked", {}).items():
        left_out = ", ".join(f"{reason} {n:,}" for reason, n in counts["left_out"].items())
        line = f"failed: marked: {task}: {counts['solved']:,} solved, {counts['failed']:,} failed"
        lines.append(f"{line}; left out: {left_out}" if left_out else line)
    if found := made.get("state_changing"):
        counted = ", ".join(f"{how} {number:,}" for how, number in found.items())
        lines.append(f"train_on: state_changing: conversations: {counted}")
    if judge := made.get("judge"):
        turns, outcomes = judge["turns"], judge["conversations"].items()
        counted = ", ".join(f"{outcome} {number:,}" for outcome, number in outcomes)
        chosen = f"{turns.get('chosen', 0):,} of {turns.get('all', 0):,} turns chosen"
        lines.append(f"train_on: judge: {chosen}; conversations: {counted}")
    return lines
