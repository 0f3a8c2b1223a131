"""Read the transcripts that evaluations write to a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agenttuning_plugin.reports.collected import collected_records
from agenttuning_plugin.reports.endpoint_files import FOLDER, PREFIX
from dataset_builders.collection.folder import STATE
from dataset_builders.conversation import REASONING_FIELD
from dataset_builders.errors import SourceNotFoundError
from evaluators.results.evaluations import TRANSCRIPTS
from evaluators.results.transcripts import read_transcript
from evaluators.tasks.turns import split_message

_SPENT = {"item", "scores", "error", "messages", "failures", "exit_reason"}


@dataclass(frozen=True, slots=True)
class Shown:
    """The episodes of a folder.

    Attributes:
        episodes: JSON-ready, in the order of their files.
        left_out: Number of episodes over the limit, by file.
        without: Number of items without any turn, by file: those of loss and replay, which play no
            episodes.
    """

    episodes: list[dict[str, Any]]
    left_out: dict[str, int]
    without: dict[str, int] = field(default_factory=dict)


def read_episodes(folder: Path, limit: int) -> Shown:
    """Read the transcripts of a folder.

    Args:
        folder: Output folder of `agenttuning evaluate`, `agenttuning collect` or a training run.
        limit: Maximum episodes per task and step; the others are counted.

    Raises:
        SourceNotFoundError: There is no transcript.
        DataError: A line has another format.
    """
    shown = Shown([], {})
    for source in _sources(folder):
        rows = list(source.rows())
        if rows and not any("messages" in row for row in rows):
            shown.without[source.label] = len(rows)
            continue
        shown.episodes.extend(_episode(source, row) for row in rows[:limit])
        if len(rows) > limit:
            shown.left_out[source.label] = len(rows) - limit
    if not shown.episodes and not shown.without:
        raise SourceNotFoundError(
            f"{folder}: found no {TRANSCRIPTS}/*.jsonl and no {STATE}/*.sqlite, expected a folder "
            "that `agenttuning evaluate --out`, `agenttuning collect` or a training run with "
            "evaluators wrote"
        )
    return shown


@dataclass(frozen=True, slots=True)
class _Source:
    """Episodes of one task at one step; `label` names the file."""

    label: str
    task: str
    step: int | None
    rows: Callable[[], Iterable[Mapping[str, Any]]]


def _sources(folder: Path) -> list[_Source]:
    """Return all sources, by step and name: of the run, of its endpoint, and collected ones."""
    found = []
    places = [(folder / TRANSCRIPTS, "")]
    # An endpoint's evaluations are in separate folders: see `endpoint_callback`.
    places += [(each / TRANSCRIPTS, PREFIX) for each in (folder / FOLDER).glob("step-*")]
    for place, prefix in places:
        for file in place.rglob("*.jsonl"):
            step = _step(place.parent if prefix else file.parent)
            label = str(file.relative_to(folder))
            found.append(_Source(label, prefix + file.stem, step, partial(read_transcript, file)))
    for name, records in collected_records(folder).items():
        label = f"{STATE}/{name}.sqlite"
        found.append(_Source(label, name, None, lambda rows=records: rows))  # type: ignore[misc]
    return sorted(found, key=lambda source: (source.step is not None, source.step, source.task))


def _step(place: Path) -> int | None:
    head, _, number = place.name.partition("-")
    return int(number) if head == "step" and number.isdecimal() else None


def _episode(source: _Source, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": source.task,
        "step": source.step,
        "item": row["item"],
        "scores": row.get("scores") or {},
        "error": row.get("error") or "",
        "exit": row.get("exit_reason") or "",
        "failures": row.get("failures") or [],
        "facts": {key: value for key, value in row.items() if key not in _SPENT},
        "opening": _opening(row),
        "turns": [_turn(message) for message in row.get("messages") or []],
    }


def _opening(row: Mapping[str, Any]) -> int:
    """Count the turns before the task's own: instruction, demonstration, acknowledgement."""
    roles = [message.get("role") for message in row.get("messages") or []]
    spoken = [number for number, role in enumerate(roles) if role == "assistant"]
    given = len(spoken) - int(row.get("rounds", len(spoken)))
    return spoken[given - 1] + 1 if 0 < given <= len(spoken) else 0


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    role, text = str(message.get("role")), str(message.get("content"))
    if role != "assistant":
        return {"role": role, "text": text}
    thought, action = split_message(message)
    reasoning = str(message.get(REASONING_FIELD) or "")
    thought = "\n\n".join(filter(None, (reasoning, thought)))
    return {"role": role, "thought": thought, "action": action}
