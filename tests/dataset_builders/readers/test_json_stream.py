from __future__ import annotations

import io
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.readers import json_stream
from dataset_builders.readers.json_stream import BadRecord, iter_array, iter_lines

SETTINGS = settings(max_examples=300, deadline=None, database=None)

# Texts that look like JSON are the hard case for finding the next item after damage.
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ['{"id": "x", "conversations": []}', '"}]},', "[", "]", "}", ",", ":", "\\", "é"]
    ),
)
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt"]), "value": TEXTS}), max_size=3
)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[bytes, list[dict[str, Any]], list[tuple[int, int]]]:
    """An array as bytes, its items and the byte range of each."""
    turns = draw(st.lists(TURNS, min_size=1, max_size=5))
    items = [{"id": f"r{n}", "conversations": turn} for n, turn in enumerate(turns)]
    indent = draw(st.sampled_from([None, 2]))
    ascii_only = draw(st.booleans())
    data, spans = b"[", []
    for n, item in enumerate(items):
        data += b",\n " if n else b"\n "
        text = json.dumps(item, indent=indent, ensure_ascii=ascii_only).encode()
        spans.append((len(data), len(data) + len(text)))
        data += text
    return data + b"\n]\n", items, spans


def read_array(data: bytes, chunk: int = 2**20) -> tuple[list[Any], list[str]]:
    lost: list[str] = []
    with mock.patch.object(json_stream, "_CHUNK", chunk):
        return [value for _, value in iter_array(io.BytesIO(data), lost.append)], lost


@SETTINGS
@given(arrays(), st.integers(1, 40))
def test_whole_array_is_read_at_any_chunk_size(array: Any, chunk: int) -> None:
    data, items, _ = array
    assert read_array(data, chunk) == (items, [])


@SETTINGS
@given(arrays(), st.data(), st.sampled_from([1, 7, 2**20]))
def test_array_cut_at_any_byte(array: Any, data: st.DataObject, chunk: int) -> None:
    whole, items, spans = array
    cut = data.draw(st.integers(1, len(whole.rstrip()) - 1))
    found, lost = read_array(whole[:cut], chunk)
    assert found == [item for item, (_, end) in zip(items, spans, strict=True) if end <= cut]
    assert len(lost) == 1
    started = [start for start, end in spans if start < cut < end]
    # Halves of a character count as one each, so bytes and characters agree on ASCII.
    if whole.isascii():
        assert lost[0].startswith(f"{cut - started[0] if started else 0:,} characters lost")


@SETTINGS
@given(arrays(), st.data(), st.sampled_from([1, 7, 2**20]))
def test_array_with_a_missing_middle(array: Any, data: st.DataObject, chunk: int) -> None:
    whole, items, spans = array
    start = data.draw(st.integers(1, len(whole) - 3))
    end = data.draw(st.integers(start + 1, len(whole) - 2))
    found, lost = read_array(whole[:start] + whole[end:], chunk)
    untouched = [item for item, (a, b) in zip(items, spans, strict=True) if b <= start or a >= end]
    strays = [value for value in found if value not in untouched]
    # Every item outside the hole is there, in order.
    assert [value for value in found if value in untouched] == untouched
    if any(a < start < b or a < end < b for a, b in spans):
        # Two halves can make one valid item; short of that the damage is reported.
        assert lost or strays


@SETTINGS
@given(st.binary(max_size=60))
def test_any_bytes_end_without_an_error(data: bytes) -> None:
    read_array(b"[" + data, 3)
    list(iter_lines(io.BytesIO(data)))


def test_array_after_damage_ignores_tool_calls() -> None:
    item = (
        '{"id": "a", "messages": [{"role": "assistant", "tool_calls": [{"id": "call", "n": 1}]}]}'
    )
    broken = item.replace('"role"', '"role')
    found, lost = read_array(f"[{broken}, {item}]".encode())
    assert found == [json.loads(item)]
    end = len(broken) + 3
    assert lost == [f"{end - 1} characters lost after item 0 (characters 1 to {end}): damaged"]


def test_array_item_above_the_limit_is_lost_not_loaded() -> None:
    big = json.dumps({"id": "big", "conversations": ["x" * 5000]})
    small = json.dumps({"id": "small", "conversations": []})
    with mock.patch.object(json_stream, "MAX_ITEM_BYTES", 1000):
        found, lost = read_array(f"[{small}, {big}, {small}]".encode(), 100)
    assert found == [json.loads(small)] * 2
    assert len(lost) == 1


def test_array_item_with_invalid_utf8_is_a_bad_record() -> None:
    found, lost = read_array(b'[{"id": "\xff"}, {"id": "\xc3\xa9"}]')
    assert isinstance(found[0], BadRecord)
    assert found[0].reason == "not_utf8"
    assert found[1] == {"id": "é"}
    assert lost == []


def test_deeply_nested_item_is_lost_not_fatal() -> None:
    found, lost = read_array(b"[" + b"[" * 100_000 + b', {"id": 1, "messages": []}]')
    assert found == [{"id": 1, "messages": []}]
    assert len(lost) == 1


def test_line_above_the_limit() -> None:
    with mock.patch.object(json_stream, "MAX_ITEM_BYTES", 10):
        lines = list(iter_lines(io.BytesIO(b'"' + b"x" * 50 + b'"\n1\n')))
    assert lines[0][1].reason == "too_large"
    assert lines[1] == (2, 1)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("key", ["model", 'a"é\n'])
def test_damage_is_passed_by_the_first_key_of_the_file(key: str, ascii_only: bool) -> None:
    rows = [{key: "x", "id": str(n), "conversations": [{"value": "v"}]} for n in range(50)]
    text = json.dumps(rows, ensure_ascii=ascii_only)
    at = text.index('"3"')
    for chunk in (7, 2**20):
        found, lost = read_array((text[:at] + '"' + text[at:]).encode(), chunk)
        assert found == rows[:3] + rows[4:]
        assert len(lost) == 1
