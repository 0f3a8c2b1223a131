"""Logs of chat completions: a request with its messages and tools, and the response to it.

Records:

- `{request: {messages, tools}, response: {choices}}`: gateways and proxies. Each of the two may be
  JSON text, or lie under `body`.
- `{messages, response: {choices}}`: the payload of LiteLLM's loggers.
- `{custom_id, body: {messages}}` and `{custom_id, response: {body: {choices}}}`: input and output
  files of a batch (OpenAI's Batch API, vLLM's `run_batch`) in one folder, joined by their
  `custom_id`.

One record gives one conversation, in which the loss covers the response alone: the turns before
it were trained in the records of their own requests, or were written by somebody else. A request
without `model` keeps the response's. A reward may be given as `reward`, and a `session_id`, beside
it or in `metadata`: the requests of a session have one location, so that they are never split
between training and holdout.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_builders.conversation import TRAIN_FIELD
from dataset_builders.finish_reason import is_cut, is_filter
from dataset_builders.formats.dialects import plain_turns
from dataset_builders.formats.rewards import number_of
from dataset_builders.formats.rollout_ends import check_no_error
from dataset_builders.formats.shapes import from_raw, openai_tools
from dataset_builders.readers.arrow_rows import parsed_json
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    every_record,
    object_of,
)
from dataset_builders.readers.files import Located, Record, read_records
from dataset_builders.readers.json_stream import BadRecord, OnLost
from dataset_builders.readers.turn_lists import turn_list
from dataset_builders.tools import metadata_text

SOURCE = "openai_log"
_BAD = "bad_log"


def is_log(value: Mapping[str, Any]) -> bool:
    """Whether a record is a request with its response."""
    response = _body(value.get("response"))
    if isinstance(response, Mapping) and "choices" in response:
        return True
    if _is_request(value):
        return isinstance(_body(value), Mapping) and "messages" in _body(value)
    return "response" in value and isinstance(_body(value.get("request")), Mapping)


def read(located: Located, on_lost: OnLost) -> Generator[Record]:
    """Yield the records; of a batch, each response with the request of its `custom_id`.

    The requests of input files are held in memory.
    """
    inputs = [file for file in located.files if _is_request(_first(file))]
    requests: dict[str, list[Record]] = {}
    for record in every_record(located._replace(files=tuple(inputs)), on_lost):
        if _is_request(record.value):
            requests.setdefault(str(record.value["custom_id"]), []).append(record)
        else:
            yield record
    answered: set[str] = set()
    rest = tuple(file for file in located.files if file not in inputs)
    for record in every_record(located._replace(files=rest), on_lost):
        value = record.value
        name = str(value.get("custom_id")) if isinstance(value, Mapping) else ""
        if name in requests and value.get("request") is None:
            answered.add(name)
            record = record._replace(value=_joined(value, requests[name]))
        yield record
    for name, unanswered in requests.items():
        for record in () if name in answered else unanswered:
            detail = f"custom_id {name:.60}: found no response to it, expected an output file"
            yield record._replace(value=BadRecord("no_response", detail))


def _joined(value: Mapping[str, Any], requests: list[Record]) -> Mapping[str, Any] | BadRecord:
    if len(requests) > 1:
        places = " and ".join(record.where for record in requests[:2])
        return BadRecord(_BAD, f"custom_id: found in {places}, expected one request")
    return {**value, "request": requests[0].value["body"]}


def _is_request(value: Any) -> bool:
    """Whether a record is a line of a batch's input file."""
    if not isinstance(value, Mapping) or isinstance(value, BadRecord):
        return False
    return value.get("custom_id") is not None and "body" in value and "response" not in value


def _first(file: Path) -> Any:
    with closing(read_records(file)) as records:
        return next((record.value for record in records), None)


def convert(record: Record) -> Converted:
    """Convert a request and its response to a conversation.

    Args:
        record: The record.

    Raises:
        RecordDroppedError: It has another form (`bad_log`), the request failed
            (`generation_error`), the answer was cut (`cut_turn`) or filtered, or see `from_raw`.
    """
    row = object_of(record)
    check_no_error(row.get("error"), "error")
    request = _body(row["request"] if row.get("request") is not None else row)
    if not isinstance(request, Mapping) or not isinstance(request.get("messages"), list | str):
        raise RecordDroppedError(
            _BAD, f"request: found {_names(request)}, expected an object with messages"
        )
    answer, response = _answer(row.get("response"))
    turns = plain_turns(turn_list(request["messages"]))
    turns = turns if isinstance(turns, list) else []
    for turn in turns:
        if isinstance(turn, dict):
            turn[TRAIN_FIELD] = False
    written = plain_turns([{**answer, "role": answer.get("role") or "assistant"}])
    tools = request.get("tools") or _parameters(row).get("tools")
    metadata = row.get("metadata")
    known: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    fields = {
        "id": row.get("custom_id") or row.get("id") or response.get("id"),
        "task": known.get("task"),
        "model": response.get("model") or request.get("model"),
        "tools": openai_tools(tools),
    }
    converted = from_raw(fields, [*turns, *written], SOURCE, {})
    reward = number_of(row.get("reward"), "reward")
    session = row.get("session_id") or known.get("session_id")
    where = f"session {metadata_text(session)}" if session else ""
    conversation = replace(converted.conversation, reward=reward, where=where)
    return converted._replace(conversation=conversation)


def _answer(value: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the message of a response, and the response."""
    outer = parsed_json(value)
    status = outer.get("status_code") if isinstance(outer, Mapping) else None
    response = _body(value)
    if not isinstance(response, Mapping):
        raise RecordDroppedError(
            _BAD, f"response: found {value!r:.60}, expected an object with choices"
        )
    check_no_error(response.get("error"), "response.error")
    if isinstance(status, int) and status >= 400:
        check_no_error(f"status {status}", "response.status_code")
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        found = len(choices) if isinstance(choices, list) else _names(response)
        raise RecordDroppedError(
            _BAD, f"response.choices: found {found}, expected one (streamed chunks are not read)"
        )
    message, reason = choices[0].get("message"), str(choices[0].get("finish_reason"))
    if is_cut(reason) or is_filter(reason):
        raise RecordDroppedError(
            "cut_turn", f"response.choices[0].finish_reason: found {reason!r}: the answer was cut"
        )
    if not isinstance(message, Mapping):
        raise RecordDroppedError(
            _BAD, f"response.choices[0].message: found {message!r:.60}, expected an object"
        )
    # Servers send the fields of other uses as null.
    given = {name: value for name, value in message.items() if value not in (None, [], {})}
    return {**given, "content": message.get("content")}, response


def _body(value: Any) -> Any:
    value = parsed_json(value)
    if isinstance(value, Mapping) and "body" in value:
        return parsed_json(value["body"])
    return value


def _parameters(row: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("model_parameters", "optional_params"):
        value = row.get(name)
        if isinstance(value, Mapping):
            return value
    return {}


def _names(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(map(repr, list(value)[:6])) or "an empty object"
    return type(value).__name__
