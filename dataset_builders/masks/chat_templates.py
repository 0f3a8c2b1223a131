"""Chat templates: those shipped here, and their requirements on tokenizers and messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any

from dataset_builders.conversation import Message, ToolCall
from dataset_builders.errors import ConfigError, MaskError
from dataset_builders.masks.call_ids import has_long_ids, rejects_long_ids, with_short_ids
from dataset_builders.masks.clock import with_fixed_clock
from dataset_builders.masks.reasoning import (
    AS_TEXT,
    REASONING,
    REFUSED,
    find_form,
    write_reasoning,
)
from dataset_builders.reasoning import with_tags

Row = dict[str, Any]
"""A message in the format that chat templates take."""

# Errors that a template's code may raise on a conversation that it was not written for.
_REFUSALS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def template_names() -> tuple[str, ...]:
    """Return the names of the shipped chat templates."""
    folder = files("dataset_builders.masks") / "templates"
    return tuple(
        sorted(
            entry.name.removesuffix(".jinja")
            for entry in folder.iterdir()
            if entry.name.endswith(".jinja")
        )
    )


def load_template(name: str) -> str:
    """Return the text of a shipped chat template, such as "llama-2".

    Raises:
        ConfigError: There is no template of that name; lists the available ones.
    """
    if name not in template_names():
        raise ConfigError(
            f"chat template: found {name!r}, expected one of {', '.join(template_names())}"
        )
    return (files("dataset_builders.masks") / "templates" / f"{name}.jinja").read_text("utf-8")


def template_message(message: Message, *, arguments_as_text: bool = False) -> Row:
    """Return the dictionary that chat templates expect, without absent fields.

    Args:
        message: The message.
        arguments_as_text: Whether a call's arguments are given as JSON text in place of
            an object; templates differ in which of the two they support.
    """
    row: Row = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": call.arguments
                    if arguments_as_text
                    else json.loads(call.arguments),
                },
                **({"id": call.id} if call.id else {}),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    if message.name:
        row["name"] = message.name
    if message.reasoning:
        row[REASONING] = message.reasoning
    return row


def parse_tools(tools: str) -> list[Any] | None:
    """Parse a conversation's function schemas from JSON text; "" gives an empty list.

    Raises:
        MaskError: The text is not JSON of a list of objects.
    """
    if not tools:
        return None
    try:
        parsed = json.loads(tools)
    except json.JSONDecodeError as error:
        raise MaskError(f"tools: not JSON ({error})", "tools") from error
    if not isinstance(parsed, list) or not all(isinstance(tool, dict) for tool in parsed):
        raise MaskError(f"tools: found {tools[:60]!r}, expected a list of objects", "tools")
    return parsed or None


class ChatTemplate:
    """A tokenizer's chat template as a function from messages to text.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._in_parts = False
        self._in_parts = self._wants_parts()

    def rows(self, messages: Sequence[Message]) -> list[Row]:
        """Convert messages to the rows that `text` takes.

        Reasoning keeps a key of its own where the template reads it; else it is put in front
        of the content as `<think>` text.

        Raises:
            MaskError: There is a tool call, and the template does not support them; or reasoning,
                and the template marks reasoning in its own format that cannot be rendered.
        """
        calls = any(message.tool_calls for message in messages)
        as_text = calls and self._arguments_as_text
        if calls and has_long_ids(messages) and self._rejects_long_ids:
            messages = with_short_ids(messages)
        rows = [template_message(message, arguments_as_text=as_text) for message in messages]
        return [self._placed(row) if REASONING in row else row for row in rows]

    def _placed(self, row: Row) -> Row:
        if self.reasoning_form == REFUSED:
            raise MaskError(
                "the chat template reads no reasoning, and marks reasoning in its own format, "
                "so it cannot be rendered",
                "reasoning",
            )
        if self.reasoning_form == AS_TEXT:
            row = dict(row)
            row["content"] = with_tags(row["content"], row.pop(REASONING))
        return row

    def text(
        self, rows: Sequence[Row], tools: list[Any] | None = None, *, prompt: bool = False
    ) -> str:
        """Render rows on the fixed date `clock.CLOCK`, with special tokens written out.

        Args:
            rows: Messages.
            tools: Function schemas.
            prompt: Whether to add the generation prompt.

        Raises:
            MaskError: The template refuses the conversation; carries its own words.
        """
        import jinja2

        rows = [self._own(row) for row in rows]
        try:
            text = self._tokenizer.apply_chat_template(
                rows,
                tools=tools,
                chat_template=self._dated(tools),
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except (jinja2.TemplateError, *_REFUSALS) as error:
            raise MaskError(f"the chat template rejects the conversation: {error}") from error
        return str(text)

    def _own(self, row: Row) -> Row:
        """Convert a row to the template's own format."""
        row = write_reasoning(row, self.reasoning_form) if REASONING in row else row
        if self._in_parts and isinstance(row["content"], str):
            return {**row, "content": _parts(row["content"])}
        return row

    @cached_property
    def reasoning_form(self) -> str:
        """How the template reads reasoning, see `reasoning.find_form`."""
        try:
            as_text = self._arguments_as_text
            calls = [template_message(m, arguments_as_text=as_text) for m in CALL_PROBE]
        except MaskError:
            calls = []

        def render(rows: Sequence[Row]) -> str:
            return self.text(rows, CALL_PROBE_TOOLS if "tool_calls" in rows[1] else None)

        return find_form(render, str(self._tokenizer.get_chat_template()), calls)

    def _dated(self, tools: list[Any] | None) -> str | None:
        """Return the template's text with a fixed date; None if it writes no date."""
        if "strftime_now" not in str(self._tokenizer.chat_template):
            return None
        return with_fixed_clock(self._tokenizer.get_chat_template(tools=tools))

    def _wants_parts(self) -> bool:
        """Whether the template accepts contents only as lists of parts (as vision models' do)."""
        probe: Row = {"role": "user", "content": "qwords"}
        try:
            if "qwords" in self.text([probe]):
                return False
        except MaskError:
            pass
        try:
            return "qwords" in self.text([{**probe, "content": _parts("qwords")}])
        except MaskError:
            return False

    @cached_property
    def _rejects_long_ids(self) -> bool:
        as_text = self._arguments_as_text

        def render(messages: Sequence[Message]) -> str:
            rows = [template_message(each, arguments_as_text=as_text) for each in messages]
            return self.text(rows, CALL_PROBE_TOOLS)

        return rejects_long_ids(render, CALL_PROBE)

    @cached_property
    def _arguments_as_text(self) -> bool:
        """Whether the template wants a call's arguments as JSON text.

        Some templates write an object as JSON, some only join strings, and some accept both but
        write Python notation or JSON within JSON.
        """
        refusals = []
        for as_text in (False, True):
            rows = [template_message(m, arguments_as_text=as_text) for m in CALL_PROBE]
            try:
                text = self.text(rows, CALL_PROBE_TOOLS)
            except MaskError as error:
                refusals.append(str(error))
                continue
            if "{'qkey'" not in text and '\\"qkey' not in text and "qvalue" in text:
                return as_text
        raise MaskError(
            "the chat template cannot write a tool call: "
            + (refusals[0] if refusals else "it leaves the arguments out or garbles them")
            + "; calls_as_text: true of the source writes calls as text"
        )


def _parts(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


CALL_PROBE = (
    Message("user", "qask"),
    Message(
        "assistant",
        "",
        True,
        # Nine letters or digits, as Mistral's templates require.
        (ToolCall("qfunction", '{"qkey": "qvalue"}', "qcallid09"),),
    ),
    Message("tool", "qresult", tool_call_id="qcallid09"),
    Message("assistant", "qanswer", True),
)
CALL_PROBE_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "qfunction",
            "description": "Does it.",
            "parameters": {
                "type": "object",
                "properties": {"qkey": {"type": "string", "description": "What."}},
                "required": ["qkey"],
            },
        },
    }
]
"""A conversation with a tool call, to probe how a template writes it."""


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Check that a tokenizer can render and mask conversations.

    Raises:
        ConfigError: It has no chat template or no eos token, or is not a fast one.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            f"{name}: the tokenizer has no chat template. Name one: --chat-template, in a recipe "
            "agenttuning: {chat_template: llama-2} or Axolotl's chat_template"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{name}: found a slow tokenizer, expected a fast one: masks need character offsets"
        )
    if not tokenizer.eos_token:
        raise ConfigError(f"{name}: the tokenizer has no eos token, so no turn could end")
