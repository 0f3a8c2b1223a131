"""Files as they really come: compressed, cut short, in another encoding, with huge turns."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.errors import DataError
from dataset_builders.readers.building import LoadResult
from dataset_builders.readers.files import locate, read_records
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def record(number: int, text: str = "a") -> dict[str, Any]:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": text}]
    return {"id": f"r{number}", "conversations": turns}


RECORDS = [record(n, f"{n * 7919 % 1009}é" * 40) for n in range(300)]
LINES = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in RECORDS).encode()
ARRAY = json.dumps(RECORDS, indent=2).encode()


def load(path: Path) -> LoadResult:
    """Read a file as it is: cleaning would leave out texts that occur twice, and more."""
    return load_source(replace(resolve_source(path).spec, clean=Cleaning.none()))


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(("name", "data"), [("a.jsonl", LINES), ("a.json", ARRAY)])
def test_compressed_is_read_like_plain(tmp_path: Path, suffix: str, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    plain = load(tmp_path / name)
    # Two frames, as `cat` joins them, and zeros, as a copy to a block device leaves them.
    packed = PACK[suffix](data[:5000]) + PACK[suffix](data[5000:]) + bytes(512)
    (tmp_path / (name + suffix)).write_bytes(packed)
    found = load(tmp_path / (name + suffix))
    assert found.conversations == plain.conversations
    assert len(found.conversations) == 300
    assert not found.report.lost
    assert found.conversations[0].where.startswith(name + suffix)


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(("name", "data"), [("a.jsonl", LINES), ("a.json", ARRAY)])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.999])
def test_a_cut_compressed_file_keeps_what_was_complete(
    tmp_path: Path, suffix: str, name: str, data: bytes, part: float
) -> None:
    # Frames of a hundred records, so that something is complete in every format.
    step = len(data) // 10
    packed = b"".join(PACK[suffix](data[n : n + step]) for n in range(0, len(data), step))
    path = tmp_path / (name + suffix)
    path.write_bytes(packed[: int(len(packed) * part)])
    found, report = load(path)
    assert [json.loads(f'"{item.id[1:]}"') for item in found] == [str(n) for n in range(len(found))]
    assert 300 * part * 0.6 < len(found) < 300 or part > 0.99
    assert report.lost[0].startswith(f"{path.name}: compressed stream cut short after ")
    assert report.read == report.kept + report.dropped.total()
    assert report.dropped.total() <= 1  # the line that the cut runs through
    assert report.lost[0] in report.summary()


@pytest.mark.parametrize("suffix", PACK)
def test_damage_within_a_compressed_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    first = PACK[suffix](LINES)
    path.write_bytes(first + b"this is no frame of any format")
    found, report = load(path)
    assert len(found) == 300
    assert report.lost[0].startswith(f"{path.name}: compressed stream damaged (")
    path.write_bytes(b"this is no frame of any format")
    with pytest.raises(DataError, match=rf"a\.jsonl\{suffix}: not readable as \{suffix}: damaged"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the first 0 records"):
        load(path)
    with pytest.raises(DataError, match=r"found no record; damage: .*cut short after 0 bytes"):
        load_source(SourceSpec(str(path), "sharegpt"))


SETTINGS = settings(max_examples=150, deadline=None, database=None)


@SETTINGS
@given(st.sampled_from(sorted(PACK)), st.data())
def test_any_change_to_a_compressed_file_ends_without_another_error(
    suffix: str, data: st.DataObject
) -> None:
    packed = bytearray(PACK[suffix](LINES[:3000]))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    del packed[data.draw(st.integers(0, len(packed))) :]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"agenttuning-{os.getpid()}.jsonl{suffix}"
    path.write_bytes(packed)
    try:
        list(read_records(path))
    except DataError as error:
        assert path.name in str(error)  # noqa: PT017
    finally:
        path.unlink()


def test_compressed_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("t-00000-of-00002.jsonl.zst", "t-00001-of-00002.jsonl.zst"):
        (tmp_path / "data" / name).write_bytes(PACK[".zst"](LINES))
    found = locate(str(tmp_path))
    assert len(found.files) == len(locate(str(tmp_path), data_files=["data/*.zst"]).files) == 2
    assert locate(str(tmp_path), splits=["t"]).files == found.files
    (tmp_path / "data" / name).unlink()
    with pytest.raises(DataError, match="found 1 of 2 shards"):
        locate(str(tmp_path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
def test_wide_encodings_are_named(tmp_path: Path, name: str, encoding: str, found: str) -> None:
    text = json.dumps([record(1)]) if name == "a.json" else json.dumps(record(1)) + "\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=rf"{name}: found {found} text, expected UTF-8.*iconv"):
        load_source(SourceSpec(str(tmp_path / name), "sharegpt"))


def test_latin_1_records_are_dropped_by_name(tmp_path: Path) -> None:
    lines = [json.dumps(record(n, text), ensure_ascii=False) for n, text in enumerate(("a", "é"))]
    (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode("latin-1"))
    (tmp_path / "b.json").write_bytes(f"[{','.join(lines)}]".encode("latin-1"))
    for name, where in (("a.jsonl", "a.jsonl:2"), ("b.json", "b.json: item 2")):
        found, report = load(tmp_path / name)
        assert len(found) == 1
        assert report.dropped == {"not_utf8": 1}
        (sample,) = report.samples["not_utf8"]
        assert sample.startswith(where)
        assert "is not UTF-8 (Latin-1?)" in sample


def test_nul_bytes(tmp_path: Path) -> None:
    good, spelled = json.dumps(record(1)), json.dumps(record(2, "a\0b"))
    raw = spelled.replace("\\u0000", "\0")
    # The tail of a file whose writer lost power, as file systems leave it.
    (tmp_path / "a.jsonl").write_text("\n".join((good, spelled, raw, "\0" * 5000)))
    found, report = load(tmp_path / "a.jsonl")
    assert [item.messages[1].content for item in found] == ["a", "a\0b"]
    assert report.dropped == {"bad_json": 2}
    (tmp_path / "a.json").write_text(f"[{good},{spelled}\0\0\0\0")
    found, report = load(tmp_path / "a.json")
    assert len(found) == 2
    assert len(report.lost) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.zst"])
def test_ten_megabytes_in_one_turn(tmp_path: Path, name: str) -> None:
    text = "word é " * (10 * 2**20 // 8)
    records = [record(1), record(2, text), record(3)]
    lines = "".join(json.dumps(item) + "\n" for item in records)
    data = json.dumps(records).encode() if name == "a.json" else lines.encode()
    (tmp_path / name).write_bytes(PACK[".zst"](data) if name.endswith(".zst") else data)
    found, report = load(tmp_path / name)
    assert [len(item.messages[1].content) for item in found] == [1, len(text), 1]
    assert report.kept == 3


def test_ids_of_different_conversations_are_kept_and_counted(tmp_path: Path) -> None:
    rows = [record(1, "a"), record(1, "a"), record(1, "b"), record(1, "c"), record(2, "a")]
    nameless = [{"conversations": row["conversations"]} for row in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + nameless))
    found, report = load(path)
    assert len(found) == 10
    # An exact copy is no conflict; what has no id has no conflict either.
    assert report.duplicate_ids == 2
    assert "2 with the id of another" in report.summary()
    assert report.to_dict()["duplicate_ids"] == 2


def test_real_duplicate_ids(shared: Path) -> None:
    path = shared / "data/sharegpt/sharegpt_v3_sample.json"
    ids: dict[str, set[str]] = {}
    kept = load(path).conversations
    for item in kept:
        ids.setdefault(item.id, set()).add(repr(item.messages))
    conflicts = sum(len(contents) - 1 for contents in ids.values())
    assert load(path).report.duplicate_ids == conflicts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"conversations": {"a": 1}}', "bad_turns"),
        ('{"conversations": [1]}', "bad_turns"),
        ('{"conversations": [{"from": {"a": 1}, "value": "x"}]}', "unknown_role"),
        ('{"conversations": [{"from": "human", "value": {"a": 1}}]}', "content_not_text"),
        ('{"id": [1], "conversations": [{"from": "human", "value": "x"}]}', "no_assistant_turn"),
        ("3", "not_an_object"),
        ("null", "not_an_object"),
        ("NaN", "not_an_object"),
        ("[" * 100_000, "bad_json"),
        ("9" * 5000, "bad_json"),
    ],
)
def test_wrong_types_name_the_record(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(record(1))}\n{text}\n")
    report = load(path).report
    assert report.dropped == {reason: 1}
    assert report.samples[reason][0].startswith("a.jsonl:2: ")


def test_one_object_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(record(1), indent=2))
    (found,) = load(path).conversations
    assert (found.id, found.where) == ("r1", "a.json: item 1")
    path.write_text(json.dumps(record(1), indent=2)[:-10])
    (only,) = read_records(path)
    assert isinstance(only.value, BadRecord)
    assert only.value.reason == "bad_json"


UNREACHABLE = """
from dataset_builders import SourceNotFoundError
from dataset_builders.sources.inputs import resolve_source
try:
    resolve_source("nobody/nothing-of-this-name")
except SourceNotFoundError as error:
    print(error)
"""


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", UNREACHABLE],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("nobody/nothing-of-this-name: not a local path, and not reachable")
    assert "check the id, the network, HF_TOKEN and HF_HUB_OFFLINE" in line
