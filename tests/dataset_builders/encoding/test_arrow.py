"""Datasets on disk: streamed, whole or not at all, the same bytes each time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.arrow import INDEX_FILE
from dataset_builders.encoding.chunks import CHUNK
from dataset_builders.encoding.row_index import INDEX
from dataset_builders.encoding.tokens import IGNORE_INDEX, Encoded, Encoder, encode_dataset
from dataset_builders.errors import DataError, StorageError

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("transformers")


def talks(number: int) -> Iterator[Conversation]:
    for n in range(number):
        messages = [
            Message("user", f"Question {n} é🙂"),
            Message("assistant", f"Answer {n}. " * (n % 5 + 1), trained=True),
            Message("user", "And?"),
            Message("assistant", "No more.", trained=n % 3 == 0),
        ]
        yield Conversation.create(
            messages, id=f"t_{n}", source="test", task="a", model="m", where=f"f.jsonl:{n}"
        )


@pytest.fixture(scope="module")
def encoder(small_tokenizer: Any) -> Encoder:
    return Encoder(small_tokenizer, max_length=10_000)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_on_disk_are_those_in_memory(encoder: Encoder, tmp_path: Path) -> None:
    number = CHUNK + 5  # more than one chunk
    made = encode_dataset(talks(number), encoder, folder=tmp_path / "a/rows")
    held = encode_dataset(talks(number), encoder)
    read = load_from_disk(str(tmp_path / "a/rows"))
    assert made.dataset.cache_files  # mapped, not held in memory
    assert held.dataset.cache_files == []
    for other in (held.dataset, read):
        assert other.features == made.dataset.features
        assert other.to_list() == made.dataset.to_list()
    assert len(read) == made.report.rows == number
    # What caches of `datasets` go by is the content, wherever it lies.
    encode_dataset(talks(number), encoder, folder=tmp_path / "b")
    assert load_from_disk(str(tmp_path / "b"))._fingerprint == read._fingerprint
    (tmp_path / "b").rename(tmp_path / "a/b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "rows"]


def check_index(made: Encoded) -> None:
    rows = made.dataset.to_list()
    index = made.index.to_pylist()
    assert [item["tokens"] for item in index] == [len(row["input_ids"]) for row in rows]
    assert [item["trained_tokens"] for item in index] == [
        sum(label != IGNORE_INDEX for label in row["labels"]) for row in rows
    ]


def test_the_index_names_every_row(encoder: Encoder, tmp_path: Path) -> None:
    untrained = Conversation.create([Message("user", "q")], id="no")
    made = encode_dataset([*talks(3), untrained, *talks(2)], encoder, folder=tmp_path / "rows")
    check_index(made)
    assert pq.read_table(tmp_path / "rows" / INDEX_FILE).equals(made.index)
    assert tuple(made.index.column_names) == INDEX
    assert [str(field.type) for field in made.index.schema] == ["string"] * 5 + ["int32"] * 4
    assert made.index["id"].to_pylist() == ["t_0", "t_1", "t_2", "t_0", "t_1"]
    first = made.index.to_pylist()[1]
    del first["tokens"], first["trained_tokens"]
    assert first == {
        **{"id": "t_1", "source": "test", "task": "a", "model": "m"},
        **{"where": "f.jsonl:1", "part": 0, "entry": 0},
    }


def test_pieces_are_numbered(small_tokenizer: Any) -> None:
    encoder = Encoder(small_tokenizer, max_length=40, policy="split")
    made = encode_dataset(talks(12), encoder)
    check_index(made)
    parts = list(zip(made.index["id"].to_pylist(), made.index["part"].to_pylist(), strict=True))
    assert made.report.split > 0
    assert made.report.pieces == sum(part > 0 for _, part in parts)
    assert {id_ for id_, part in parts if part == 1} == {id_ for id_, part in parts if part}
    assert sum(part == 2 for _, part in parts) > 0


def test_two_runs_give_the_same_bytes_with_any_number_of_processes(
    encoder: Encoder, tmp_path: Path
) -> None:
    number = 3 * CHUNK + 7
    folders = [tmp_path / name for name in ("one", "two", "many")]
    reports = [
        encode_dataset(talks(number), encoder, folder=folder, processes=processes).report
        for folder, processes in zip(folders, (1, 1, 2), strict=True)
    ]
    first, second, many = map(contents, folders)
    assert set(first) == {
        *("data-00000-of-00001.arrow", "dataset_info.json", "state.json", INDEX_FILE)
    }
    assert first == second == many
    assert reports[0] == reports[1] == reports[2]
    assert not any(str(tmp_path).encode() in data for data in first.values())
    changed = encode_dataset(talks(number - 1), encoder, folder=tmp_path / "other")
    assert contents(tmp_path / "other")["state.json"] != first["state.json"]
    assert changed.report.read == number - 1


def test_nothing_is_left_of_a_build_that_fails(encoder: Encoder, tmp_path: Path) -> None:
    def broken() -> Iterator[Conversation]:
        yield from talks(CHUNK + 1)
        raise DataError("f.jsonl:300: found rubbish")

    for source, words in ((broken(), "found rubbish"), (iter(()), "no trainable row")):
        with pytest.raises(DataError, match=words):
            encode_dataset(source, encoder, folder=tmp_path / "rows")
        assert list(tmp_path.iterdir()) == []
    for processes in (1, 2):
        with pytest.raises(DataError, match="found rubbish"):
            encode_dataset(broken(), encoder, folder=tmp_path / "rows", processes=processes)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/mine").touch()
    with pytest.raises(StorageError, match=r"rows: cannot be written: Directory not empty$"):
        encode_dataset(talks(3), encoder, folder=tmp_path / "rows")
    assert [path.name for path in tmp_path.rglob("*")] == ["rows", "mine"]
    (tmp_path / "rows/mine").rename(tmp_path / "file")
    with pytest.raises(
        StorageError, match=r"file/rows: cannot be written: (Not a directory|File exists)$"
    ):
        encode_dataset(talks(3), encoder, folder=tmp_path / "file/rows")


def test_an_occupied_folder_is_told_before_anything_is_read(
    encoder: Encoder, tmp_path: Path
) -> None:
    def unread() -> Iterator[Conversation]:
        pytest.fail("was read")
        yield from talks(1)

    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/mine").touch()
    with pytest.raises(StorageError, match=r"rows: cannot be written: Directory not empty$"):
        encode_dataset(unread(), encoder, folder=tmp_path / "rows")
    assert [path.name for path in tmp_path.rglob("*")] == ["rows", "mine"]


def test_only_what_was_left_behind_long_ago_is_removed(encoder: Encoder, tmp_path: Path) -> None:
    long_ago = time.time() - 2 * 24 * 60 * 60
    kept = [".other.partial-a", ".rows.partial-writing", ".rows.partial-young"]
    for name in [*kept, ".rows.partial-stale"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").touch()
        if "writing" not in name:
            os.utime(tmp_path / name / "data", (long_ago, long_ago))
        if "young" not in name:
            os.utime(tmp_path / name, (long_ago, long_ago))
    encode_dataset(talks(3), encoder, folder=tmp_path / "rows")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "rows"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no program mount to make a tiny disk with")
    if done.returncode:
        pytest.skip(f"a tiny disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing(encoder: Encoder, tiny_disk: Path) -> None:
    with pytest.raises(StorageError) as error:
        encode_dataset(talks(2000), encoder, folder=tiny_disk / "rows")
    assert str(error.value) == f"{tiny_disk / 'rows'}: cannot be written: No space left on device"
    assert list(tiny_disk.iterdir()) == []
    # The disk is usable again: what was written is gone.
    encode_dataset(talks(20), encoder, folder=tiny_disk / "rows")
    assert len(load_from_disk(str(tiny_disk / "rows"), keep_in_memory=True)) == 20


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_file_that_may_not_grow_leaves_nothing(encoder: Encoder, tmp_path: Path) -> None:
    with (
        file_size_limit(50_000),
        pytest.raises(StorageError, match=r"^\S+rows: cannot be written: File too large$"),
    ):
        encode_dataset(talks(2000), encoder, folder=tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_build_that_is_killed_leaves_nothing_under_the_name(
    encoder: Encoder, tmp_path: Path
) -> None:
    def dying() -> Iterator[Conversation]:
        yield from talks(3 * CHUNK)
        os.kill(os.getpid(), signal.SIGKILL)

    def build() -> None:
        encode_dataset(dying(), encoder, folder=tmp_path / "rows")

    process = multiprocessing.get_context("fork").Process(target=build)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # It had begun to write.
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".rows.partial-")
    assert (partial / "data-00000-of-00001.arrow").stat().st_size > 10_000
    assert len(encode_dataset(talks(3), encoder, folder=tmp_path / "rows").dataset) == 3
