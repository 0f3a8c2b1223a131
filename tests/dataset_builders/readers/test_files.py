from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.readers.files import content_fingerprint, locate, read_records, split_of
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.sources.loading import SourceSpec, load_source


def test_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\n  \n{"n": \n"\xff"\n[2]\n{"n"')
    records = list(read_records(file))
    assert [record.where for record in records] == [f"a.jsonl:{n}" for n in (1, 4, 5, 6, 7)]
    assert records[0].value == {"n": 1}
    assert records[3].value == [2]
    bad = [record.value for record in records if isinstance(record.value, BadRecord)]
    assert [value.reason for value in bad] == ["bad_json", "not_utf8", "bad_json"]
    assert "ends inside this line" in bad[2].detail
    assert {record.task_hint for record in records} == {"a"}


def test_json_holding_lines_or_an_array(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('\n{"n": 1}\n{"n": 2}\n')
    assert [record.value for record in read_records(file)] == [{"n": 1}, {"n": 2}]
    file.write_bytes(b'\xef\xbb\xbf [{"n": 1}, 2, "x"]')
    assert [(record.where, record.value) for record in read_records(file)] == [
        ("a.json: item 1", {"n": 1}),
        ("a.json: item 2", 2),
        ("a.json: item 3", "x"),
    ]
    file.write_text("")
    assert list(read_records(file)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [('{\n "data": []\n}', "found one JSON object"), ("<html>", "starts with b'<'")],
)
def test_json_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_records(file))


def test_damaged_parquet(tmp_path: Path, shared: Path) -> None:
    source = shared / "data/agentinstruct_hub/data/kg-00000-of-00001.parquet"
    file = tmp_path / "kg.parquet"
    file.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"kg\.parquet: not readable as parquet after row 0"):
        list(read_records(file))


def test_split_of() -> None:
    assert split_of(Path("x/db-00000-of-00001.parquet")) == "db"
    assert split_of(Path("db.jsonl")) == "db"
    assert split_of(Path("a-b-00001-of-00003.parquet")) == "a-b"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.jsonl", "a.jsonl", "c.json", "README.md"], ["a.jsonl", "b.jsonl"]),
        (["a.jsonl", "data/t-00000-of-00001.parquet"], ["data/t-00000-of-00001.parquet"]),
        (["x.json", "dataset_infos.json", ".hidden.json"], ["x.json"]),
        (["data/x.json"], ["data/x.json"]),
        (
            ["a.jsonl", "b.jsonl.gz", "c.jsonl.xz", "d.json"],
            ["a.jsonl", "b.jsonl.gz", "c.jsonl.xz"],
        ),
        (["a.jsonl", "a.jsonl.gz"], ["a.jsonl"]),
    ],
)
def test_locate_chooses_one_format(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    touch(tmp_path, *names)
    found = locate(str(tmp_path))
    assert [file.relative_to(tmp_path).as_posix() for file in found.files] == expected
    left = {*names} - {*expected, "README.md", "dataset_infos.json", ".hidden.json"}
    assert {line.split(": not read, ")[0] for line in found.unread_lines()} == left


def test_files_of_another_format_are_named_in_the_report(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name in ("a.jsonl", "c.json"):
        (tmp_path / name).write_text(json.dumps({"messages": turns}) + "\n")
    report = load_source(SourceSpec(str(tmp_path), "messages")).report
    assert report.kept == 1
    assert report.unread == [
        "c.json: not read, beside .jsonl files; name it in data_files if it belongs to the data"
    ]


def test_locate_data_files_and_splits(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl", "sub/c.json")
    assert locate(str(tmp_path), data_files=["sub/*"]).files == (tmp_path / "sub/c.json",)
    assert locate(str(tmp_path), splits=["b"]).files == (tmp_path / "b.jsonl",)
    with pytest.raises(ConfigError, match="no split c; found a, b"):
        locate(str(tmp_path), splits=["a", "c"])
    with pytest.raises(SourceNotFoundError, match=r"z\*: no data in .* matches"):
        locate(str(tmp_path), data_files=["z*"])
    for pattern in ("/etc/*", "../*", ""):
        with pytest.raises(ConfigError, match="expected a pattern inside the source"):
            locate(str(tmp_path), data_files=[pattern])


def test_locate_finds_missing_shards(tmp_path: Path) -> None:
    touch(tmp_path, "data/t-00000-of-00003.parquet", "data/t-00002-of-00003.parquet")
    with pytest.raises(DataError, match="found 2 of 3 shards, missing number 1;"):
        locate(str(tmp_path))
    assert len(locate(str(tmp_path), data_files=["data/t-00000*"]).files) == 1


def test_locate_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFoundError, match=r"expected \.parquet, \.jsonl or \.json"):
        locate(str(tmp_path))
    touch(tmp_path, "a.csv", "a.jsonl")
    with pytest.raises(DataError, match=r"found \.csv, expected"):
        locate("a.csv")
    with pytest.raises(ConfigError, match="only the hub has revisions"):
        locate("a.jsonl", revision="main")
    with pytest.raises(ConfigError, match="data_files is set"):
        locate("a.jsonl", data_files=["x"])


@pytest.mark.parametrize(
    "path", ["./x/y", "../x", "/x/y", "~/x", "x/y.jsonl", "o/x.parquet", "o/x.json"]
)
def test_local_path_never_goes_to_the_hub(path: str) -> None:
    with (
        mock.patch("huggingface_hub.snapshot_download", side_effect=AssertionError) as download,
        pytest.raises(SourceNotFoundError, match="no such file or folder"),
    ):
        locate(path)
    download.assert_not_called()


@pytest.mark.parametrize("path", ["", "nothing", "a/b/c", "a b/c"])
def test_neither_path_nor_hub_id(path: str) -> None:
    with pytest.raises(SourceNotFoundError, match="neither a file or folder here nor a hub"):
        locate(path)


def test_hub_request_and_failure() -> None:
    error = ConnectionError("no route\nto host")
    with (
        mock.patch("huggingface_hub.snapshot_download", side_effect=error) as download,
        pytest.raises(SourceNotFoundError) as caught,
    ):
        locate("owner/name", revision="v1", data_files=["x.json"])
    download.assert_called_once_with(
        repo_id="owner/name", repo_type="dataset", revision="v1", allow_patterns=["x.json"]
    )
    text = str(caught.value)
    assert "not a local path, and not reachable on the hub at revision v1" in text
    assert "no route to host" in text
    assert "\n" not in text


HUB_SCRIPT = """
from dataset_builders import SourceNotFoundError, SourceSpec, load_source
result = load_source(SourceSpec("zai-org/AgentInstruct", "agentinstruct", splits=("db", "os")))
print(len(result.conversations), sorted({item.task for item in result.conversations}))
for revision in ("main", "0" * 40):
    try:
        load_source(SourceSpec("zai-org/Other", "agentinstruct", revision=revision))
    except SourceNotFoundError as error:
        print(error)
"""


def test_hub_id_is_read_from_the_hub_cache(tmp_path: Path, shared: Path) -> None:
    sha = "e252cf78" + "0" * 32
    repo = tmp_path / "hub/datasets--zai-org--AgentInstruct"
    shutil.copytree(shared / "data/agentinstruct_hub", repo / "snapshots" / sha)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(sha)
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HUB_SCRIPT],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "445 ['db', 'os']"
    assert len(lines) == 3
    assert all("zai-org/Other: not a local path, and not reachable" in line for line in lines[1:])


def test_fingerprint_follows_names_and_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text("1\n")
        (tmp_path / name / "b.jsonl").write_text("2\n")
    one, two = (locate(str(tmp_path / name)) for name in ("one", "two"))
    first = content_fingerprint(one)
    assert content_fingerprint(two) == first
    (tmp_path / "one/b.jsonl").write_text("3\n")
    assert content_fingerprint(one) != first
    (tmp_path / "two/b.jsonl").rename(tmp_path / "two/c.jsonl")
    assert content_fingerprint(locate(str(tmp_path / "two"))) != first
