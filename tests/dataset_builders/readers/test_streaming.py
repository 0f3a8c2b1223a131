"""Sources are read as their conversations are asked for, in memory that stays the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import DataError, SourceSpec, stream_source
from dataset_builders.readers import building
from dataset_builders.sources.inputs import read_source

TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_records_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    closed: list[bool] = []

    def watched(file: Path, on_lost: Any) -> Any:
        try:
            for number in range(10):
                read.append(f"{file.name}:{number}")
                yield building.Record(read[-1], {"id": number, "conversations": TURNS}, "")
        finally:
            closed.append(True)

    monkeypatch.setattr(building, "read_records", watched)
    result = stream_source(SourceSpec(write(tmp_path / "a.jsonl"), "sharegpt"))
    assert read == []
    assert next(result.conversations).where == "a.jsonl:0"
    assert (len(read), result.report.kept, closed) == (1, 1, [])
    result.conversations.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_several_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", {"conversations": TURNS})
    bad = write(tmp_path / "b.jsonl", {"conversations": [{"from": "human", "value": "q"}]})
    specs = [SourceSpec(good, "sharegpt"), SourceSpec(bad, "sharegpt")]
    conversations, reports = read_source(specs, "general", None)
    assert [report.read for report in reports] == [0, 0]
    stream = iter(conversations)
    assert next(stream).where == "a.jsonl:1"
    with pytest.raises(DataError, match="none of 1 records can be used: no_assistant_turn 1"):
        next(stream)
    assert [report.read for report in reports] == [1, 1]


PEAK = """
import sys
from dataset_builders import SourceSpec, stream_source
from dataset_builders.cleaning.steps import Cleaning
spec = SourceSpec(sys.argv[1], "sharegpt", clean=Cleaning.none())
kept = sum(1 for _ in stream_source(spec).conversations)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(kept, peak.split()[1])
"""


def peak_of(path: Path) -> tuple[int, int]:
    """Conversations kept, and the peak memory of a process that streams them in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    kept, peak = map(int, done.stdout.split())
    return kept, peak


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("indent", [None, 2])
def test_peak_memory_does_not_grow_with_the_file(tmp_path: Path, indent: int | None) -> None:
    peaks = []
    for size in (4, 16):  # thousands of records of some 2 kB
        records = [
            {"id": str(n), "conversations": [
                {"from": name, "value": f"word{n} " * 120} for name in ("human", "gpt")]}
            for n in range(size * 1000)
        ]  # fmt: skip
        path = tmp_path / "a.json"
        if indent is None:
            write(path, *records)
        else:
            path.write_text(json.dumps(records, indent=indent))
        kept, peak = peak_of(path)
        assert kept == size * 1000
        peaks.append(peak)
    # 24 MB more of text; what grows is the memory of identifiers, 150 bytes each.
    assert peaks[1] - peaks[0] < 4 * 1024
