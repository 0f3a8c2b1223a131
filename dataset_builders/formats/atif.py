"""ATIF (Agent Trajectory Interchange Format): steps of a user, a system and an agent.

Record: one trajectory, checked by the pydantic models of the package `atif` (an optional
extra). Each step becomes turns:

| step | turns |
|---|---|
| `source: system` | system |
| `source: user` | user |
| `source: agent` | assistant: `message` and `tool_calls` |
| its `observation.results` | tool, where `source_call_id` names a call; else user |

An agent's step is trained on unless it was copied from another trajectory for context
(`is_copied_context`), was not written by a model (`llm_call_count: 0`), or is empty.
`reasoning_content` becomes the turn's reasoning. Turns of one role in a row are joined.
`agent.tool_definitions` become the tools, `model_name` the model where all steps share one. For
chat templates without tools see `calls_as_text`. Embedded trajectories of subagents are left out
and counted; a result that consists of nothing but such a reference, and pictures, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import DataError, MissingExtraError
from dataset_builders.formats.shapes import finish, merge_turns
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    object_of,
)
from dataset_builders.readers.files import Record
from dataset_builders.tools import parse_tool_calls, parse_tools

if TYPE_CHECKING:
    from atif import ContentPart, ObservationResult, Step, Trajectory

SOURCE = "atif"
VERSION_PREFIX = "ATIF-v1."
"""Prefix of `schema_version` in the supported versions."""


def trajectory_model() -> type[Trajectory]:
    """The pydantic model that validates trajectories.

    Raises:
        MissingExtraError: The package `atif` is not installed.
    """
    try:
        from atif import Trajectory
    except ImportError as error:
        raise MissingExtraError(
            "trajectories in ATIF need the package atif: pip install 'agenttuning-plugin[atif]'"
        ) from error
    return Trajectory


def convert(record: Record, *, model: type[Trajectory]) -> Converted:
    """Convert a trajectory to a conversation.

    Args:
        record: The record.
        model: See `trajectory_model`.

    Raises:
        RecordDroppedError: The record cannot be used.
    """
    trajectory = _validated(object_of(record), model)
    changes: dict[str, int] = {}
    turns = [turn for step in trajectory.steps for turn in _turns_of(step, changes)]
    merged, changes["merged_turns"] = merge_turns(turns)
    changes["subagents_left_out"] = len(trajectory.subagent_trajectories or ())
    try:
        conversation = Conversation.create(
            merged,
            id=trajectory.trajectory_id or trajectory.session_id or "",
            source=SOURCE,
            tools=parse_tools(trajectory.agent.tool_definitions),
            model=_model_of(trajectory),
        )
    except DataError as error:
        raise RecordDroppedError("bad_atif", str(error)) from error
    return finish(conversation, changes)


def _validated(value: Any, model: type[Trajectory]) -> Trajectory:
    version = value.get("schema_version")
    if not isinstance(version, str) or not version.startswith(VERSION_PREFIX):
        raise RecordDroppedError(
            "bad_atif", f"schema_version: found {version!r:.40}, expected {VERSION_PREFIX}x"
        )
    try:
        # Strict, as the format requires: "2" is not a valid step_id.
        return model.model_validate(value, strict=True)
    # pydantic's ValidationError is a ValueError.
    except (ValueError, RecursionError) as error:
        raise RecordDroppedError("bad_atif", _first_fault(error)) from error


def _first_fault(error: Exception) -> str:
    faults: list[Any] = getattr(error, "errors", list)()
    if not faults:
        return str(error)
    place = ".".join(map(str, faults[0]["loc"])) or "trajectory"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place}: {faults[0]['msg']}, found {faults[0]['input']!r:.40}{more}"


def _turns_of(step: Step, changes: dict[str, int]) -> Iterator[Message]:
    where = f"step {step.step_id}: "
    text = _text(step.message, f"{where}message")
    if step.source == "agent":
        yield _agent_turn(step, text, changes)
    else:
        yield Message(step.source, text)
    for result in step.observation.results if step.observation else ():
        yield _result_turn(result, f"{where}observation: ")


def _agent_turn(step: Step, text: str, changes: dict[str, int]) -> Message:
    reasoning = step.reasoning_content or None
    raw = [
        {
            "id": call.tool_call_id,
            "function": {"name": call.function_name, "arguments": call.arguments},
        }
        for call in step.tool_calls or ()
    ]
    try:
        calls = parse_tool_calls(raw)
    except DataError as error:
        raise RecordDroppedError("bad_atif", f"step {step.step_id}: {error}") from error
    says = bool(calls or text.strip() or reasoning)
    trained = says and not step.is_copied_context and step.llm_call_count != 0
    changes["untrained_steps"] = changes.get("untrained_steps", 0) + (not trained)
    return Message("assistant", text, trained=trained, tool_calls=calls, reasoning=reasoning)


def _result_turn(result: ObservationResult, where: str) -> Message:
    if result.content is None:
        raise RecordDroppedError(
            "unsupported_field", f"{where}content: found none, only a subagent, expected text"
        )
    text = _text(result.content, f"{where}content")
    if result.source_call_id:
        return Message("tool", text, tool_call_id=result.source_call_id)
    return Message("user", text)


def _text(content: str | list[ContentPart], where: str) -> str:
    if isinstance(content, str):
        return content
    if any(part.type != "text" for part in content):
        raise RecordDroppedError("multimodal", f"{where}: found a picture or sound, expected text")
    if len(content) != 1:
        raise RecordDroppedError("content_parts", f"{where}: found {len(content)} parts, not one")
    return content[0].text or ""


def _model_of(trajectory: Trajectory) -> str:
    default = trajectory.agent.model_name or ""
    names = {step.model_name or default for step in trajectory.steps if step.source == "agent"}
    return next(iter(names)) if len(names) == 1 else ""
