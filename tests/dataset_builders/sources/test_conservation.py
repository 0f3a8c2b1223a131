"""Records read are records kept plus records dropped by reason, whatever a file holds."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, get_args
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.conversation import to_row
from dataset_builders.errors import DataError
from dataset_builders.readers.report import SourceReport
from dataset_builders.sources.converters import CONVERTERS
from dataset_builders.sources.loading import Format, SourceSpec, stream_source

# Lone surrogates and control characters included: JSON can spell them.
TEXTS = ["", " ", "a", "user", "assistant", "tool", "human", "gpt", "false", "{", "\ud800", "\0"]
SCALARS = [None, True, False, -1, 0, 1, 2, 0.5, 1.0, float("nan"), float("inf"), 2**70]

USER = {"role": "user", "content": "q"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
REPLY = {"role": "assistant", "content": "a", "train": True, "weight": 1, "tool_calls": [CALL]}
TOOL = {"role": "tool", "content": "r", "tool_call_id": "c"}
SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {}}}
STEP = {
    "step_id": 2,
    "source": "agent",
    "message": "m",
    "reasoning_content": "r",
    "tool_calls": [{"tool_call_id": "c", "function_name": "f", "arguments": {"a": 1}}],
    "observation": {"results": [{"source_call_id": "c", "content": "o"}]},
}
VALID: dict[str, list[dict[str, Any]]] = {
    "agentinstruct": [
        {
            "id": "db_1",
            "conversations": [
                {"from": "human", "loss": None, "value": "q"},
                {"from": "gpt", "loss": False, "value": "Ok."},
                {"from": "human", "loss": None, "value": "q"},
                {"from": "gpt", "loss": True, "value": "a"},
            ],
        }
    ],
    "sharegpt": [
        {
            "id": "x_0",
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        }
    ],
    "messages": [
        {"id": "1", "messages": [USER, REPLY, TOOL, REPLY], "tools": [SCHEMA], "model": "m"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"system": "s", "task": "t", "messages": [USER, {**REPLY, "tool_calls": None}]},
        {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
    ],
    "prompt_completion": [
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER], "completion": [REPLY], "tools": json.dumps([SCHEMA])},
    ],
    "alpaca": [{"instruction": "q", "input": "i", "output": "a", "system": "s"}],
    "adp": [
        {
            "id": "1",
            "details": {"dataset": "d"},
            "content": [
                {"class_": "text_observation", "content": "q", "source": "user"},
                {"class_": "api_action", "function": "f", "kwargs": {"a": 1}, "tool_call_id": "c"},
                {"class_": "web_observation", "axtree": "t", "url": "u", "tool_call_id": "c"},
                {"class_": "code_action", "language": "py", "content": "1", "description": "d"},
                {"class_": "json_observation", "content": {"a": 1}, "source": "environment"},
                {"class_": "message_action", "content": "a", "reasoning_content": "r"},
            ],
        }
    ],
    "atif": [
        {
            "schema_version": "ATIF-v1.7",
            "agent": {"name": "x", "version": "1", "tool_definitions": [SCHEMA]},
            "steps": [{"step_id": 1, "source": "user", "message": "q"}, STEP],
        }
    ],
    "verifiers": [
        {
            "example_id": 1,
            "prompt": [USER],
            "completion": [
                {"role": "assistant", "content": "", "tool_calls": [json.dumps(CALL)]},
                TOOL,
                {"role": "assistant", "content": "a", "reasoning_content": "r"},
            ],
            "reward": 1.0,
            "error": None,
            "is_completed": True,
            "is_truncated": False,
            "stop_condition": "max_turns_reached",
            "tool_defs": [{"name": "f", "description": "d", "parameters": {}}],
            "info": {"oai_tools": json.dumps([SCHEMA])},
        },
        {"example_id": 2, "prompt": "q", "completion": "a", "reward": 0, "task": "t", "model": "m"},
    ],
    "openai_log": [
        {
            "id": "1",
            "request": {"model": "m", "messages": [USER], "tools": [SCHEMA]},
            "response": {
                "model": "m-1",
                "choices": [{"message": REPLY | {"refusal": None}, "finish_reason": "tool_calls"}],
            },
            "metadata": {"task": "t"},
            "reward": 0.5,
            "team": "m",
        },
        {
            "id": "batch-2",
            "custom_id": "2",
            "request": json.dumps({"body": {"messages": [USER, REPLY, TOOL]}}),
            "response": {
                "status_code": 200,
                "body": {"choices": [{"message": {"role": "assistant", "content": "a"}}]},
            },
            "error": None,
        },
    ],
}  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a value and each key or index of it."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)
    return found


def names_in(value: Any) -> list[str]:
    return sorted({key for container, key in places(value) if isinstance(container, dict)})


EXTRA = sorted(
    {name for records in VALID.values() for record in records for name in names_in(record)}
    | {"images", "history", "thinking", "loss", "training", "function_call", "chat_template_kwargs"}
)


def junk(rng: Random, depth: int = 2) -> Any:
    """Any JSON value."""
    kind = rng.randrange(4 if depth else 2)
    if kind == 0:
        return rng.choice(SCALARS)
    if kind == 1:
        return rng.choice(TEXTS) + chr(rng.choice((rng.randrange(128), rng.randrange(0x11000))))
    if kind == 2:
        return [junk(rng, depth - 1) for _ in range(rng.randrange(3))]
    return {name(rng): junk(rng, depth - 1) for _ in range(rng.randrange(3))}


def name(rng: Random) -> str:
    return rng.choice(EXTRA) if rng.random() < 0.9 else str(junk(rng, 0))


def mutated(rng: Random, format: str) -> Any:
    """A valid record with one to three changes at any depth."""
    value = copy.deepcopy(rng.choice(VALID[format]))
    for _ in range(rng.randint(1, 3)):
        spots = places(value)
        if not spots:
            break
        container, key = rng.choice(spots)
        change = rng.choice(["replace", "replace", "delete", "double", "add", "empty"])
        if change == "delete":
            del container[key]
        elif change == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif change == "add" and isinstance(container, dict):
            container[name(rng)] = junk(rng)
        elif change == "empty" and isinstance(container[key], dict | list | str):
            container[key] = type(container[key])()
        else:
            container[key] = junk(rng)
    return value


def line(rng: Random, format: str) -> bytes:
    """A line of a file: mostly a mutated record, else any JSON, or a record's bytes damaged."""
    kind = rng.random()
    text = json.dumps(mutated(rng, format) if kind < 0.9 else junk(rng, 3)).encode()
    if kind < 0.8 or kind >= 0.9:
        return text
    raw = bytearray(text)
    del raw[rng.randrange(len(raw)) :: rng.randint(1, 40)]
    raw.insert(rng.randint(0, len(raw)), rng.choice(b'\xff\x80\0"\\{[,'))
    return bytes(raw)


def check(file: Path, format: Format, lines: list[bytes], *, reconstruct: bool) -> int:
    """Build from the lines and check the account of every one; returns records read."""
    good = json.dumps(VALID[format][0]).encode()
    file.write_bytes(b"\n".join([*lines, good]))
    dropped: list[tuple[str, str, str]] = []

    def drop(report: SourceReport, reason: str, where: str, detail: str) -> None:
        dropped.append((reason, where, detail))
        original(report, reason, where, detail)

    original = SourceReport.drop
    spec = SourceSpec(str(file), format, reconstruct_loss=reconstruct and format == "agentinstruct")
    with mock.patch.object(SourceReport, "drop", drop):
        result = stream_source(spec)
        kept = list(result.conversations)
    report = result.report
    assert report.read == len(lines) + 1
    assert report.read == report.kept + sum(report.dropped.values())
    assert report.kept == len(kept) >= 1
    assert Counter(reason for reason, _, _ in dropped) == report.dropped
    # Every line is accounted for once, by its own place.
    found = [item.where for item in kept] + [where for _, where, _ in dropped]
    assert sorted(found) == sorted(f"{file.name}:{n + 1}" for n in range(report.read))
    assert all(reason.isidentifier() and detail for reason, _, detail in dropped)
    for item in kept:
        assert item.num_trained
        row = to_row(item, tool_calls=True, tools=True, model=True)
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    assert sum(task["conversations"] for task in report.tasks.values()) == report.kept
    assert report.summary().isprintable()
    json.dumps(report.to_dict(), allow_nan=False).encode()
    return report.read


def run(format: Format, folder: Path, examples: int, size: int) -> int:
    """Check generated files; returns the number of different malformed records in them."""
    seen: set[bytes] = set()

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.integers(0, 2**64), st.booleans())
    def test(seed: int, reconstruct: bool) -> None:
        rng = Random(seed)
        lines = [line(rng, format) for _ in range(size)]
        check(folder / "a.jsonl", format, lines, reconstruct=reconstruct)
        seen.update(lines)

    test()
    return len(seen)


def test_every_format_is_tested() -> None:
    # A job of harbor is a folder: see test_harbor.
    assert set(VALID) | {"harbor"} == set(CONVERTERS) == set(get_args(Format))


@pytest.mark.parametrize("format", VALID)
def test_every_malformed_record_is_accounted_for(format: Format, tmp_path: Path) -> None:
    if format == "atif":
        pytest.importorskip("atif")
    assert run(format, tmp_path, 50, 50) * len(VALID) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("format", VALID)
def test_more_malformed_records_are_accounted_for(format: Format, tmp_path: Path) -> None:
    if format == "atif":
        pytest.importorskip("atif")
    assert run(format, tmp_path, 300, 100) * len(VALID) > 100_000


@pytest.mark.parametrize("format", VALID)
def test_every_valid_record_is_kept(format: Format, tmp_path: Path) -> None:
    if format == "atif":
        pytest.importorskip("atif")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in VALID[format]))
    result = stream_source(SourceSpec(str(path), format))
    assert len(list(result.conversations)) == len(VALID[format])


@pytest.mark.parametrize("format", VALID)
def test_records_behind_damage_are_found(format: Format, tmp_path: Path) -> None:
    if format == "atif":
        pytest.importorskip("atif")
    good = [json.dumps(record) for record in VALID[format] if "system" not in list(record)[:1]]
    path = tmp_path / "a.json"
    path.write_text(f"[{good[0]},{good[0][:-9]},{good[0]},{good[-1]}]")
    # The same text more than once: not what is looked for here.
    clean = Cleaning.none() if format == "sharegpt" else None
    result = stream_source(SourceSpec(str(path), format, clean=clean))
    found = [item.where for item in result.conversations]
    assert found == [f"a.json: item {number}" for number in (1, 2, 3)]
    (lost,) = result.report.lost
    assert "characters lost after item 1" in lost


def test_a_lost_record_would_be_found(tmp_path: Path) -> None:
    """The check above fails for a builder that leaves records out."""
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    with (
        mock.patch.object(SourceReport, "drop"),
        pytest.raises(DataError, match=r"2 records read, but 0 kept and 0 dropped: \+2"),
    ):
        list(stream_source(SourceSpec(str(tmp_path / "a.jsonl"), "messages")).conversations)
