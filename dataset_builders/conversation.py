"""`Conversation` and `Message`: the type of all text data in this package.

A conversation is validated once, on creation (`Conversation.create`), and trusted afterwards. In a
dataset it takes the ecosystem's format: a `messages` column of `role`, `content` and the flag
`train`, which Axolotl reads through `message_field_training: train`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from dataset_builders.errors import DataError
from dataset_builders.row_options import RowOptions
from dataset_builders.tools import ToolCall as ToolCall
from dataset_builders.tools import finite_number, parse_tool_calls, parse_tools
from dataset_builders.tools import metadata_text as metadata_text

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)

TRAIN_FIELD = "train"
"""Field of a message: whether the loss covers it."""

REASONING_FIELD = "reasoning_content"
"""Field of a message with the assistant's reasoning, named as by inference servers."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Role of the speaker.
        content: Text, verbatim.
        trained: Whether the loss covers this turn; only ever true for the assistant
            (AgentInstruct's `loss` field).
        tool_calls: Function calls of an assistant turn.
        tool_call_id: The call that a tool message answers, or "".
        name: The function whose result a tool message is, where the record says so, or "";
            some chat templates write it.
        reasoning: The assistant's reasoning before the content or call, without any tags, if
            kept apart from the content; the chat template writes it, see `ChatTemplate.rows`.
    """

    role: Role
    content: str
    trained: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation and its provenance.

    Attributes:
        id: Identifier within the source; need not be unique (ShareGPT's are not).
        source: Name of the source, such as "agentinstruct".
        task: Task within the source, such as "db", or "".
        messages: The turns, at least one.
        tools: JSON text of the list of function schemas that the assistant may call, in
            the OpenAI shape, or "". Text for the same reason as `ToolCall.arguments`.
        model: Name of the model that wrote the assistant's turns, such as "gpt-4", or "".
        where: The record it was read from, such as "db.jsonl:812", or "". Not compared:
            a conversation stays the same wherever a copy of it lies.
        entry: Number of its source among those of one side of a mix, from 0. Not compared.
        options: How its rows are made, if its source says so. Not compared.
        reward: Score of the rollout that it records, if known. Not compared.
    """

    id: str
    source: str
    task: str
    messages: tuple[Message, ...]
    tools: str = ""
    model: str = ""
    where: str = field(default="", compare=False)
    entry: int = field(default=0, compare=False)
    options: RowOptions | None = field(default=None, compare=False, repr=False)
    reward: float | None = field(default=None, compare=False)

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
        """Build a conversation from unvalidated messages.

        Raises:
            DataError: There is no message, or one has a wrong type, an unknown role,
                or is trained without being the assistant's. Names the message's index.
        """
        checked = tuple(messages)
        if not checked:
            raise DataError("messages: found none, expected at least one")
        for index, message in enumerate(checked):
            _check_message(index, message)
        return cls(id, source, task, checked, tools, model, where)

    @property
    def num_trained(self) -> int:
        """Number of trained turns, which the paper counts as turns (table 1)."""
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
    if not isinstance(message.reasoning, str | None):
        found = type(message.reasoning).__name__
        raise DataError(f"{where}: {REASONING_FIELD}: found {found}, expected text")
    if message.reasoning is not None and message.role != "assistant":
        raise DataError(f"{where}: {REASONING_FIELD}: on a {message.role} turn, expected assistant")


def parse_messages(raw: object) -> tuple[Message, ...]:
    """Parse the `messages` format: a list of objects with `role` and `content`.

    The flag `train` may be absent or null; then every assistant turn is trained on, as in Axolotl
    and TRL. Its value must be a JSON boolean: "false" as text would otherwise count as true.

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
    try:
        calls = parse_tool_calls(raw.get("tool_calls"))
    except DataError as error:
        raise DataError(f"message {index}: {error}") from error
    # Serializers write an empty text for no reasoning.
    reasoning: Any = raw.get(REASONING_FIELD) or None
    if content is None and (calls or reasoning):
        content = ""
    trained: Any = raw.get(TRAIN_FIELD)
    if trained is None:
        trained = role == "assistant"
    message = Message(
        role=role,
        content=content,
        trained=trained,
        tool_calls=calls,
        tool_call_id=metadata_text(raw.get("tool_call_id")),
        name=metadata_text(raw.get("name")) if role == "tool" else "",
        reasoning=reasoning,
    )
    _check_message(index, message)
    return message


def to_row(
    conversation: Conversation,
    *,
    tool_calls: bool = False,
    names: bool = False,
    tools: bool = False,
    model: bool = False,
    reasoning: bool = False,
    reward: bool = False,
) -> dict[str, Any]:
    """Convert a conversation to a dataset row.

    Arrow fills a missing key with null in every row, and some templates only test whether the key
    exists, so columns are omitted if no conversation needs them; see `optional_columns`.

    Args:
        conversation: The conversation.
        tool_calls: Whether messages carry `tool_calls` and `tool_call_id`.
        names: Whether messages carry `name`.
        tools: Whether the row carries `tools`.
        model: Whether the row carries `model`.
        reasoning: Whether every message carries `reasoning_content`; else those that have
            reasoning do.
        reward: Whether the row carries `reward`, a number or null.

    Returns:
        A row with `id`, `source`, `task` and `messages`.
    """
    row: dict[str, Any] = {
        "id": conversation.id,
        "source": conversation.source,
        "task": conversation.task,
        "messages": [
            to_message_row(message, tool_calls, names, reasoning)
            for message in conversation.messages
        ],
    }
    if tools:
        row["tools"] = conversation.tools
    if model:
        row["model"] = conversation.model
    if reward:
        row["reward"] = conversation.reward
    return row


def to_message_row(
    message: Message, tool_calls: bool = False, names: bool = False, reasoning: bool = False
) -> dict[str, Any]:
    """Return a message as JSON values, which `parse_messages` parses."""
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
    if names:
        row["name"] = message.name
    if reasoning or message.reasoning is not None:
        row[REASONING_FIELD] = message.reasoning
    return row


def from_row(row: Mapping[str, Any], *, source: str = "") -> Conversation:
    """Parse a dataset row or a JSON object in the `messages` format.

    Raises:
        DataError: A field is missing or of a wrong type; names message and field.
    """
    if "messages" not in row:
        raise DataError(f"messages: missing, found only {', '.join(map(repr, row)) or 'nothing'}")
    conversation = Conversation.create(
        parse_messages(row["messages"]),
        id=metadata_text(row.get("id")),
        source=metadata_text(row.get("source")) or source,
        task=metadata_text(row.get("task")),
        tools=parse_tools(row.get("tools")),
        model=metadata_text(row.get("model")),
    )
    return replace(conversation, reward=finite_number(row.get("reward")))


def uses_tools(conversations: Iterable[Conversation]) -> bool:
    """Whether any turn calls a tool or answers a call."""
    return any(
        message.tool_calls or message.tool_call_id
        for conversation in conversations
        for message in conversation.messages
    )


def optional_columns(conversations: Sequence[Conversation]) -> dict[str, bool]:
    """Return which optional columns of `to_row` the conversations need, by argument name."""
    columns = {
        "tool_calls": uses_tools(conversations),
        "names": any(
            message.name for conversation in conversations for message in conversation.messages
        ),
        "tools": any(conversation.tools for conversation in conversations),
        "model": any(conversation.model for conversation in conversations),
        "reasoning": any(m.reasoning is not None for c in conversations for m in c.messages),
    }
    rewarded = any(conversation.reward is not None for conversation in conversations)
    return columns | ({"reward": True} if rewarded else {})
