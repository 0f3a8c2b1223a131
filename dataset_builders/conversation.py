"""The one type that every arrow of the data flow carries.

A conversation is checked once, where it enters (`Conversation.create`), and
trusted afterwards. In a dataset it takes the ecosystem's shape: a `messages`
column of `role`, `content` and the flag `train`, which Axolotl reads through
`message_field_training: train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dataset_builders.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)

TRAIN_FIELD = "train"
"""Column of a message that tells whether the loss covers it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of an assistant turn, in the OpenAI shape.

    Attributes:
        name: Name of the function.
        arguments: Arguments as JSON text of an object. Text, because Arrow has no
            column type for objects whose keys differ from row to row.
        id: Identifier that a tool message answers to, or "".
    """

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: Who speaks.
        content: What is said, verbatim.
        trained: Whether the loss covers this turn; only ever true for the assistant
            (AgentInstruct's `loss` field).
        tool_calls: Function calls of an assistant turn.
        tool_call_id: The call that a tool message answers, or "".
    """

    role: Role
    content: str
    trained: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue and where it came from.

    Attributes:
        id: Identifier within the source; need not be unique (ShareGPT's are not).
        source: Name of the source, such as "agentinstruct".
        task: Task within the source, such as "db", or "".
        messages: The turns, at least one.
        tools: JSON text of the list of function schemas that the assistant may call, in
            the OpenAI shape, or "". Text for the same reason as `ToolCall.arguments`.
        model: Name of the model that wrote the assistant's turns, such as "gpt-4", or "".
        where: The record it was read from, such as "db.jsonl:812", or "".
    """

    id: str
    source: str
    task: str
    messages: tuple[Message, ...]
    tools: str = ""
    model: str = ""
    where: str = ""

    @classmethod
    def create(
        cls,
        messages: Iterable[Message],
        *,
        id: str = "",
        source: str = "",
        task: str = "",
        tools: str = "",
        model: str = "",
        where: str = "",
    ) -> Conversation:
        """Build a conversation from messages that have not been checked yet.

        Raises:
            DataError: There is no message, or one has a wrong type, an unknown role,
                or is trained without being the assistant's. Names the message's index.
        """
        checked = tuple(messages)
        if not checked:
            raise DataError("messages: found none, expected at least one")
        for index, message in enumerate(checked):
            _check_message(index, message)
        return cls(
            id=id,
            source=source,
            task=task,
            messages=checked,
            tools=tools,
            model=model,
            where=where,
        )

    @property
    def num_trained(self) -> int:
        """Number of trained turns: AgentInstruct's notion of a turn (paper, table 1)."""
        return sum(message.trained for message in self.messages)


def _check_message(index: int, message: Message) -> None:
    where = f"message {index}"
    if message.role not in ROLES:
        raise DataError(
            f"{where}: role: found {message.role!r}, expected one of {', '.join(ROLES)}"
        )
    if not isinstance(message.content, str):
        found = type(message.content).__name__
        raise DataError(f"{where}: content: found {found}, expected text")
    if not isinstance(message.trained, bool):
        raise DataError(
            f"{where}: {TRAIN_FIELD}: found {message.trained!r}, expected true or false"
        )
    if message.trained and message.role != "assistant":
        raise DataError(
            f"{where}: {TRAIN_FIELD}: true on a {message.role} turn, expected assistant"
        )
    if message.tool_calls and message.role != "assistant":
        raise DataError(f"{where}: tool_calls: on a {message.role} turn, expected assistant")


def parse_messages(raw: object) -> tuple[Message, ...]:
    """Read the `messages` shape: a list of objects with `role` and `content`.

    The flag `train` may be absent or null; then every assistant turn is trained, as
    Axolotl and TRL do it. Its value must be a JSON boolean: "false" as text would
    otherwise count as true.

    Raises:
        DataError: The value is not such a list; names message and field.
    """
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        raise DataError(f"messages: found {type(raw).__name__}, expected a list")
    return tuple(_parse_message(index, item) for index, item in enumerate(raw))


def _parse_message(index: int, raw: object) -> Message:
    if not isinstance(raw, Mapping):
        raise DataError(f"message {index}: found {type(raw).__name__}, expected an object")
    role: Any = raw.get("role")
    content: Any = raw.get("content")
    calls = _parse_tool_calls(index, raw.get("tool_calls"))
    if content is None and calls:
        content = ""
    trained: Any = raw.get(TRAIN_FIELD)
    if trained is None:
        trained = role == "assistant"
    call_id = raw.get("tool_call_id")
    message = Message(
        role=role,
        content=content,
        trained=trained,
        tool_calls=calls,
        tool_call_id="" if call_id is None else str(call_id),
    )
    _check_message(index, message)
    return message


def _parse_tool_calls(index: int, raw: object) -> tuple[ToolCall, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        raise DataError(f"message {index}: tool_calls: found {type(raw).__name__}, expected a list")
    return tuple(_parse_tool_call(index, call) for call in raw)


def _parse_tool_call(index: int, raw: object) -> ToolCall:
    where = f"message {index}: tool_calls"
    function = raw.get("function", raw) if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(function, Mapping):
        raise DataError(f"{where}: found {raw!r}, expected an object with function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: name: found {name!r}, expected text")
    if arguments is None:
        arguments = {}
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: arguments: not JSON ({error})") from error
    else:
        parsed = arguments
    if not isinstance(parsed, Mapping):
        raise DataError(f"{where}: arguments: found {arguments!r}, expected a JSON object")
    text = json.dumps(parsed, ensure_ascii=False)
    return ToolCall(name=name, arguments=text, id=str(raw.get("id") or ""))


def to_row(conversation: Conversation, *, tool_calls: bool = False) -> dict[str, Any]:
    """Turn a conversation into a dataset row.

    Args:
        conversation: The conversation.
        tool_calls: Whether the rows carry the tool columns. Arrow fills a missing
            key with null in every row, and some templates ask only whether the key is
            there, so the columns are left out where no conversation needs them.

    Returns:
        A row with `id`, `source`, `task` and `messages`.
    """
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        row: dict[str, Any] = {
            "role": message.role,
            "content": message.content,
            TRAIN_FIELD: message.trained,
        }
        if tool_calls:
            row["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
            row["tool_call_id"] = message.tool_call_id
        messages.append(row)
    return {
        "id": conversation.id,
        "source": conversation.source,
        "task": conversation.task,
        "messages": messages,
    }


def from_row(row: Mapping[str, Any], *, source: str = "") -> Conversation:
    """Read a dataset row or a JSON object of the `messages` shape.

    Raises:
        DataError: A field is missing or of a wrong type; names message and field.
    """
    if "messages" not in row:
        raise DataError(f"messages: missing, found only {', '.join(map(repr, row)) or 'nothing'}")
    return Conversation.create(
        parse_messages(row["messages"]),
        id=str(row.get("id") or ""),
        source=str(row.get("source") or source),
        task=str(row.get("task") or ""),
    )


def uses_tools(conversations: Iterable[Conversation]) -> bool:
    """Whether any turn calls a tool or answers a call."""
    return any(
        message.tool_calls or message.tool_call_id
        for conversation in conversations
        for message in conversation.messages
    )
