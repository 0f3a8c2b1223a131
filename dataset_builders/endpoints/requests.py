"""Build requests for a model's turn, their cache keys, and parse the replies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from dataset_builders.conversation import Message, ToolCall
from dataset_builders.endpoints.answer import read_answer
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.endpoints.tool_calls import count_calls, read_calls
from dataset_builders.errors import ConfigError
from dataset_builders.finish_reason import (
    UNSAID,
    BrokenResponseError,
    check_error,
    check_finish,
    cut_by_context,
)
from dataset_builders.formats.spelled_calls import SpelledTurn
from dataset_builders.settings import settings

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")


@settings
class Sampling:
    """Sampling settings; all of them affect the generated data."""

    temperature: float | None = Field(
        default=None, ge=0, description="Sampling temperature. [default: its own]"
    )
    top_p: float | None = Field(
        default=None, ge=0, le=1, description="Nucleus sampling threshold. [default: its own]"
    )
    seed: int | None = Field(
        default=None, description="Sampling seed; attempt k uses seed + k. [default: none is sent]"
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Maximum tokens of a turn. [default: the benchmark's]"
    )
    stop: tuple[str, ...] = Field(default=(), description="Stop sequence; repeatable.")
    token_field: str = Field(
        default=TOKEN_FIELDS[0],
        description="Name of the token limit: max_tokens or max_completion_tokens.",
    )
    extra: Mapping[str, Any] = Field(
        default_factory=dict, description="Extra request field, as name=JSON; repeatable."
    )

    def __post_init__(self) -> None:
        if self.token_field not in TOKEN_FIELDS:
            raise ConfigError(
                f"token_field: found {self.token_field!r}, expected {' or '.join(TOKEN_FIELDS)}"
            )

    def request(
        self,
        model: str,
        messages: Sequence[Message],
        max_tokens: int,
        attempt: int,
        tools: str = "",
    ) -> dict[str, Any]:
        """Return the request's JSON body.

        Args:
            model: Name of the model.
            messages: The dialogue.
            max_tokens: Maximum tokens of the turn.
            attempt: Attempt at the task, from 0.
            tools: JSON text of the tools that the model may call; "" for none.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [request_message(message) for message in messages],
            self.token_field: self.max_tokens or max_tokens,
        }
        if tools:
            body["tools"] = json.loads(tools)
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.top_p is not None:
            body["top_p"] = self.top_p
        if self.seed is not None:
            body["seed"] = self.seed + attempt
        if self.stop:
            body["stop"] = list(self.stop)
        return {**body, **self.extra}


def request_message(message: Message) -> dict[str, Any]:
    """Return a message as JSON values of the OpenAI chat format."""
    row: dict[str, Any] = {"role": message.role, "content": plain_unicode(message.content)}
    if message.tool_calls:
        row["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": plain_unicode(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        row["tool_call_id"] = message.tool_call_id
        if message.name:
            row["name"] = message.name
    return row


def plain_unicode(text: str) -> str:
    """Replace lone surrogates, which cannot be sent, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def request_key(body: Mapping[str, Any], attempt: int) -> str:
    """Return the SHA-256 of model, messages, sampling and attempt, the key of a stored reply.

    The endpoint's URL is not part of it: a local server may restart on another port.
    """
    content = json.dumps([body, attempt], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def read_reply(text: str, model: str, prices: PriceTable, limit: int = 0, tools: str = "") -> Reply:
    """Parse an endpoint's response to a chat or text completion.

    Null content is valid: a model that calls tools, or that has used all its tokens for hidden
    thoughts, has no text. A refusal is its text. Thoughts are separated, whether
    they are in the text or in the server's own field.

    Args:
        text: The body of the response.
        model: Name of the model in the request.
        prices: Prices of requests.
        limit: Token limit of the request; 0 if unknown. A turn truncated before it has
            `finish_reason` "context_full".
        tools: JSON text of the tools that the request offered; if "", calls are only counted.

    Raises:
        BrokenResponseError: It is no JSON, has no choice with a turn, tells of an error, or
            has a `finish_reason` of a turn that the server gave up.
    """
    try:
        content = json.loads(text)
        check_error(content)
        choice = content["choices"][0]
        said = _said(choice)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        shown = text[:80] + "..." * (len(text) > 80)
        raise BrokenResponseError(f"{type(error).__name__} in {shown!r}") from None
    check_error(choice, whole=False)
    finish = (
        UNSAID if choice.get("finish_reason", "") is None else str(choice.get("finish_reason", ""))
    )
    check_finish(finish)
    usage = _fields(content.get("usage"))
    read = _number(usage.get("prompt_tokens"))
    cached = _number(_fields(usage.get("prompt_tokens_details")).get("cached_tokens"))
    written = _number(usage.get("completion_tokens"))
    counted = read + written > 0
    # Some endpoints count hidden thoughts only in the total, not in `completion_tokens`.
    spent = max(written, _number(usage.get("total_tokens")) - read)
    message = _fields(choice.get("message"))
    turn = SpelledTurn(plain_unicode(_text(said)))
    if tools:
        turn = read_calls(message, turn.text, tools)
    answer = read_answer(turn.text, plain_unicode(_reasoning(choice)))
    return Reply(
        text=str(answer),
        reasoning=answer.reasoning,
        finish_reason=CONTEXT_FULL if cut_by_context(finish, spent, limit) else finish,
        model=str(content.get("model") or model),
        prompt_tokens=read,
        cached_tokens=cached,
        completion_tokens=written,
        cost=prices.cost(model, read, cached, written) if counted else None,
        counted=counted,
        calls=0 if tools else count_calls(message),
        tool_calls=tuple(_plain_call(call) for call in turn.calls),
        malformed=tuple(map(plain_unicode, turn.malformed)),
    )


def _said(choice: Any) -> Any:
    if "message" not in choice and "text" in choice:  # Of /v1/completions.
        return choice["text"] or ""
    message = choice["message"]
    return message.get("content") or message.get("refusal") or ""


def _plain_call(call: ToolCall) -> ToolCall:
    return replace(call, arguments=plain_unicode(call.arguments), id=plain_unicode(call.id))


def _reasoning(choice: Any) -> str:
    """Return reasoning that a server has separated: `reasoning_content`, `reasoning`, or parts."""
    message = choice.get("message") or {}
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            return _text(message[name])
    parts = message.get("content")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n\n".join(_text(part["thinking"]) for part in parts if part.get("thinking"))


def token_limit(body: Mapping[str, Any]) -> int:
    """Return the token limit of a request; 0 if it has none."""
    return max((_number(body.get(name)) for name in TOKEN_FIELDS), default=0)


def _fields(value: Any) -> Mapping[str, Any]:
    # The reply is paid for: an invalid token count must not lose it.
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _text(said: Any) -> str:
    # Some endpoints return the parts of a multi-part message.
    if isinstance(said, list):
        return "".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    return str(said)
