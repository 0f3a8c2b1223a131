"""Replies and trajectories as JSON values of a collection's database."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from dataset_builders.conversation import ToolCall, parse_messages, to_message_row
from dataset_builders.endpoints.reply import Reply
from dataset_builders.rollouts.episode import Trajectory


def write_reply(reply: Reply) -> dict[str, Any]:
    """Convert a reply to JSON values."""
    values = {name: getattr(reply, name) for name in Reply.__dataclass_fields__}
    # Left out if empty, as in databases of earlier versions.
    calls, malformed = values.pop("tool_calls"), values.pop("malformed")
    if calls:
        values["tool_calls"] = [asdict(call) for call in calls]
    return values | ({"malformed": malformed} if malformed else {})


def read_reply(text: str) -> Reply:
    """Restore a reply from the JSON text of `write_reply`'s values."""
    values = json.loads(text)
    values["tool_calls"] = tuple(ToolCall(**call) for call in values.get("tool_calls", ()))
    values["malformed"] = tuple(values.get("malformed", ()))
    return Reply(**values)


def write_trajectory(trajectory: Trajectory) -> dict[str, Any]:
    """Convert a trajectory to JSON values."""
    uses_tools = bool(trajectory.tools)
    messages = [to_message_row(m, uses_tools, uses_tools) for m in trajectory.messages]
    values = {name: getattr(trajectory, name) for name in Trajectory.__dataclass_fields__}
    if not uses_tools:  # As in databases of earlier versions.
        del values["tools"], values["call_counts"]
    if not trajectory.state_changes:
        del values["state_changes"]
    return values | {"messages": messages}


def read_trajectory(text: str) -> Trajectory:
    """Restore a trajectory from `write_trajectory`'s values."""
    values = json.loads(text)
    changes = tuple(values.get("state_changes", ()))
    messages = parse_messages(values["messages"])
    return Trajectory(**{**values, "messages": messages, "state_changes": changes})
