"""Pairs of a solved and a failed attempt at the same task, in TRL's preference format.

For trainers that learn from preferences, such as TRL's `DPOTrainer`; nothing here trains on them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builders.collection.attempts import stored_collections
from dataset_builders.conversation import Conversation, Message, to_message_row
from dataset_builders.errors import DataError
from dataset_builders.storage import replace_text

NO_SOLVED = "tasks without a solved attempt"
NO_FAILED = "tasks without a failed attempt"
OTHER_PROMPT = "failed attempts with another prompt or other tools"
SAME = "failed attempts that differ in no turn"


@dataclass(slots=True)
class _Task:
    solved: Conversation | None = None
    failed: list[Conversation] = field(default_factory=list)


class PairReport(NamedTuple):
    """Number of pairs, and of what gave none.

    Attributes:
        pairs: Number of pairs.
        left_out: Tasks and attempts without a pair, by reason.
    """

    pairs: int
    left_out: Counter[str]


def write_pairs(folders: Sequence[Path], out: Path, *, one_turn: bool = False) -> PairReport:
    """Write a pair for each task with a solved and a failed attempt.

    A pair has `prompt` (the messages that both share, up to the turn where they part), `chosen` and
    `rejected` (the rest of each), `id`, `task` and, with tool calls, `tools`.

    Args:
        folders: Folders of collections; a pair may have its halves from different ones.
        out: JSON Lines file to write.
        one_turn: Whether `chosen` and `rejected` end with the turn where they part.

    Raises:
        SourceNotFoundError: A folder has no collection.
        DataError: There is no pair.
    """
    tasks: dict[tuple[str, str], _Task] = {}
    left_out: Counter[str] = Counter()
    for folder in folders:
        for collection in stored_collections(folder):
            judge = collection.judge()
            for stored in collection.attempts():
                outcome, reason = judge(stored.trajectory)
                task = tasks.setdefault((collection.task, stored.trajectory.task_id), _Task())
                if outcome not in ("solved", "failed"):
                    left_out[f"{outcome}: {reason}"] += 1
                    continue
                found = replace(collection.conversation(stored), id=stored.trajectory.task_id)
                if outcome == "failed":
                    task.failed.append(found)
                else:
                    task.solved = task.solved or found
    rows = list(_rows(tasks.values(), left_out, one_turn))
    if not rows:
        counts = ", ".join(f"{reason} {number:,}" for reason, number in left_out.items())
        places = ", ".join(map(str, folders))
        raise DataError(f"{places}: found no pair in {len(tasks)} tasks: {counts}")
    uses_tools = any("tools" in row for row in rows)
    lines = [json.dumps({"tools": "", **row} if uses_tools else row) + "\n" for row in rows]
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(out, "".join(lines))
    return PairReport(len(rows), left_out)


def _rows(
    tasks: Iterable[_Task], left_out: Counter[str], one_turn: bool
) -> Iterator[dict[str, Any]]:
    for task in tasks:
        if task.solved is None:
            left_out[NO_SOLVED] += 1
            continue
        for failed in task.failed:
            if isinstance(row := pair_of(task.solved, failed, one_turn=one_turn), dict):
                yield row
                break
            left_out[row] += 1
        else:
            left_out[NO_FAILED] += 1


def pair_of(
    solved: Conversation, failed: Conversation, *, one_turn: bool = False
) -> dict[str, Any] | str:
    """Return a pair in TRL's conversational preference format, or why there is none.

    Args:
        solved: An attempt that solved the task.
        failed: One that did not.
        one_turn: Whether the halves end with the turn where they part.
    """
    shared = 0
    for ours, theirs in zip(solved.messages, failed.messages, strict=False):
        if _plain(ours) != _plain(theirs):
            break
        shared += 1
    if solved.tools != failed.tools or shared == len(solved.messages) == len(failed.messages):
        return OTHER_PROMPT if solved.tools != failed.tools else SAME
    # Both halves begin with a turn of the model: the one where they part or, where only what the
    # world answered differs or one attempt ends earlier, the last one that they share.
    starts = [
        number
        for number, (ours, theirs) in enumerate(
            zip(solved.messages[: shared + 1], failed.messages, strict=False)
        )
        if ours.trained and theirs.role == "assistant"
    ]
    if not starts:
        return OTHER_PROMPT
    if one_turn and starts[-1] < shared:
        return SAME
    return _row(solved, failed, starts[-1], starts[-1] + 1 if one_turn else None)


def _row(solved: Conversation, failed: Conversation, start: int, end: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": solved.id, "task": solved.task}
    row["prompt"] = [_message(each) for each in solved.messages[:start]]
    row["chosen"] = [_message(each) for each in solved.messages[start:end]]
    row["rejected"] = [_message(each) for each in failed.messages[start:end]]
    return row | ({"tools": solved.tools} if solved.tools else {})


def _plain(message: Message) -> tuple[Any, ...]:
    calls = tuple((call.name, call.arguments) for call in message.tool_calls)
    return message.role, message.content, calls


def _message(message: Message) -> dict[str, Any]:
    calls = bool(message.tool_calls or message.tool_call_id)
    row = to_message_row(message, calls, bool(message.name))
    return {name: value for name, value in row.items() if name != "train"}
