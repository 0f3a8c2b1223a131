"""AgentInstruct: 1,866 verified agent trajectories of six tasks (paper, section 2.1).

Record (dataset card of zai-org/AgentInstruct, formerly THUDM/AgentInstruct):
`{id, conversations: [{from: human|gpt, loss: bool|null, value: str}]}`, one split a
task. `loss` is null on human turns, true on turns to learn and false on demonstrations
and acknowledgements; the card's "average turns" counts only the true ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.cleaning import agent_faults
from dataset_builders.conversation import Conversation, Message, Role
from dataset_builders.formats.loss_rule import reconstruct_loss
from dataset_builders.formats.meaning import check_row, check_turn
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    Turn,
    check_alternation,
    check_filled,
    id_of,
    object_of,
    parse_turn,
    turns_of,
)
from dataset_builders.readers.files import Record

HUB_ID = "zai-org/AgentInstruct"
DATA_FILES: tuple[str, ...] = ()
TASKS = ("os", "db", "alfworld", "webshop", "kg", "mind2web")
SOURCE = "agentinstruct"

_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant"}
_ID = re.compile(r"([A-Za-z0-9]+)_\d+")


def convert(
    record: Record, *, reconstruct: bool = False, steps: Sequence[agent_faults.Step] = ()
) -> Converted:
    """Convert a record to a conversation; texts stay verbatim unless a step alters them.

    Args:
        record: The record.
        reconstruct: Whether to restore the `loss` flags of conversations that have none,
            see `loss_rule`; else they are dropped. `changes` counts the gpt turns whose
            flag was restored, as `reconstructed_loss`.
        steps: Known faults to repair or drop; see `agent_faults`. All are counted.

    Raises:
        RecordDroppedError: It cannot be used.
    """
    value = object_of(record)
    check_row(value)
    id_ = id_of(value)
    raw = turns_of(value)
    for index, turn in enumerate(raw):
        check_turn(turn, f"turn {index}: ", ("loss",))
    turns = [parse_turn(index, turn, _ROLES) for index, turn in enumerate(raw)]
    check_filled(turns, "empty_content")
    prefix = _ID.fullmatch(id_)
    task = prefix[1] if prefix else record.task_hint
    flags, changes = _flags(raw, turns, task, reconstruct)
    check_alternation(turns)
    if turns[-1].role == "user":
        raise RecordDroppedError(
            "ends_with_human",
            f"turn {turns[-1].position}: from: found human at the end, expected gpt",
        )
    if not any(flags):
        raise RecordDroppedError(
            "no_trained_turn", "loss: false on every gpt turn, expected a true"
        )
    faults = agent_faults.find(turns)
    turns, repairs = agent_faults.repair(turns, flags, steps)
    messages = [Message(turn.role, turn.content, trained=flags[turn.position]) for turn in turns]
    conversation = Conversation.create(messages, id=id_, source=SOURCE, task=task)
    return Converted(conversation, {**changes, **repairs}, faults)


def _flags(
    raw: Sequence[Mapping[str, Any]], turns: Sequence[Turn], task: str, reconstruct: bool
) -> tuple[list[bool], dict[str, int]]:
    # Only if every flag is missing: a conversation with some of them has other damage.
    if reconstruct and all(turn.get("loss") is None for turn in raw):
        count = sum(turn.role == "assistant" for turn in turns)
        return reconstruct_loss(task, turns), {"reconstructed_loss": count}
    return [_is_trained(turn, raw[turn.position]) for turn in turns], {}


def _is_trained(turn: Turn, raw: Mapping[str, Any]) -> bool:
    loss, where = raw.get("loss"), f"turn {turn.position}: loss"
    if loss is not None and not isinstance(loss, bool):
        raise RecordDroppedError(
            "loss_not_boolean", f"{where}: found {loss!r:.40}, expected true or false"
        )
    if turn.role == "assistant" and loss is None:
        # A default of true would train on demonstrations, which the paper excludes.
        raise RecordDroppedError(
            "loss_missing",
            f"{where}: found {'null' if 'loss' in raw else 'nothing'} on a gpt turn, expected true "
            f"or false: this copy lost its flags, use {HUB_ID} or set reconstruct_loss",
        )
    if turn.role == "user" and loss:
        raise RecordDroppedError("loss_on_human", f"{where}: found true on a human turn")
    return bool(loss)
