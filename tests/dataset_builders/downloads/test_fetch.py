"""Fetching a file from a server that cuts, stalls, ignores ranges or serves another file."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders.downloads.fetch import Patience, Wanted, fetch, remote_size
from dataset_builders.errors import DownloadError
from tests.support.file_server import FileServer, serving_files

CONTENT = bytes(range(256)) * 400
SUM = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(stall=0.3, tries=2, pause=0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files({"/a.bin": CONTENT}) as served:
        yield served


def wanted(server: FileServer, folder: Path, *, known: bool = True) -> Wanted:
    size, digest = (len(CONTENT), SUM) if known else (None, None)
    return Wanted(folder / "a.bin", [f"{server.url}/a.bin"], size, digest)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_checked(server: FileServer, tmp_path: Path) -> None:
    arrived: list[int] = []
    file = wanted(server, tmp_path / "deep")
    assert fetch(file, arrived.append, QUICK) == (f"{server.url}/a.bin", SUM)
    assert file.target.read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT)
    assert leftovers(tmp_path / "deep") == ["a.bin"]
    assert remote_size(f"{server.url}/a.bin") == len(CONTENT)


@pytest.mark.parametrize("tag", ["", '"v1"'])
def test_a_cut_connection_is_resumed(server: FileServer, tmp_path: Path, tag: str) -> None:
    server.cuts["/a.bin"] = [1000, 50_000]
    server.tags["/a.bin"] = tag
    arrived: list[int] = []
    fetch(wanted(server, tmp_path), arrived.append, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == ["", "bytes=1000-", "bytes=50000-"]
    assert sum(arrived) == len(CONTENT)


def test_without_a_sum_only_the_same_version_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.cuts["/a.bin"] = [1000]
    server.tags["/a.bin"] = '"v1"'
    fetch(wanted(server, tmp_path, known=False), None, QUICK)
    assert server.requests[-1] == ("/a.bin", "bytes=1000-")
    server.cuts["/b.bin"], server.files["/b.bin"] = [1000], CONTENT
    fetch(Wanted(tmp_path / "b.bin", [f"{server.url}/b.bin"]), None, QUICK)
    assert server.requests[-1] == ("/b.bin", "")
    assert (tmp_path / "b.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.cuts["/a.bin"] = [1000, 1000]
    server.tags["/a.bin"] = '"v1"'
    with pytest.raises(DownloadError, match="1,000 bytes are kept"):
        fetch(wanted(server, tmp_path, known=False), None, Patience(tries=1, pause=0.0))
    server.files["/a.bin"], server.tags["/a.bin"] = CONTENT[::-1], '"v2"'
    server.cuts.clear()
    fetch(wanted(server, tmp_path, known=False), None, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_ranges_begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts["/a.bin"] = [60_000]
    arrived: list[int] = []
    fetch(wanted(server, tmp_path), arrived.append, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT)


def test_a_wrong_file_is_removed(server: FileServer, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=f"found SHA-256 .*, expected {SUM}; the file was rem"):
        fetch(wanted(server, tmp_path), None, QUICK)
    assert leftovers(tmp_path) == []
    server.files["/a.bin"] = CONTENT[:-1]
    with pytest.raises(DownloadError, match="found a file of 102,399 bytes, expected 102,400"):
        fetch(wanted(server, tmp_path), None, QUICK)
    assert not (tmp_path / "a.bin").exists()


def test_a_stall_ends_in_an_error_and_keeps_what_arrived(
    server: FileServer, tmp_path: Path
) -> None:
    server.stalls["/a.bin"] = 2000
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"timeout\); 2,000 bytes are kept, run the command"):
        fetch(wanted(server, tmp_path), None, QUICK)
    assert time.monotonic() - begin < 10
    server.stalls.clear()
    fetch(wanted(server, tmp_path), None, QUICK)
    assert server.requests[-1] == ("/a.bin", "bytes=2000-")


@pytest.mark.parametrize(
    ("status", "expected", "connections"),
    [(404, "HTTP 404 (not found)", 1), (403, "HTTP 403 (access is", 1), (503, "HTTP 503 (", 2)],
)
def test_errors_of_the_server_are_one_line(
    server: FileServer, tmp_path: Path, status: int, expected: str, connections: int
) -> None:
    server.status["/a.bin"] = status
    with pytest.raises(DownloadError) as caught:
        fetch(wanted(server, tmp_path), None, QUICK)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == connections


def test_the_next_address_is_tried(server: FileServer, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"  # A page that asks for a login.
    with serving_files({"/copy": CONTENT}) as other:
        urls = [f"{server.url}/a.bin", f"{other.url}/copy"]
        file = Wanted(tmp_path / "a.bin", urls, len(CONTENT), SUM)
        assert fetch(file, None, QUICK)[0] == urls[1]
    with pytest.raises(DownloadError, match=r"found a web page.*; .*cannot connect"):
        fetch(Wanted(tmp_path / "b.bin", urls, len(CONTENT), SUM), None, QUICK)


def test_a_full_disk_is_noticed_before_writing(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: few)
    with pytest.raises(DownloadError, match="1,000 bytes free, 102,400 are needed"):
        fetch(wanted(server, tmp_path), None, QUICK)


def test_a_whole_file_of_a_killed_process_is_only_checked(
    server: FileServer, tmp_path: Path
) -> None:
    file = wanted(server, tmp_path)
    file.part.write_bytes(CONTENT)
    fetch(file, None, QUICK)
    assert server.requests == []
    assert file.target.read_bytes() == CONTENT


def test_credentials_stay_with_their_host(tmp_path: Path) -> None:
    from urllib.request import Request

    from dataset_builders.downloads.fetch import _request

    request = _request("https://example.org/a", {"Authorization": "Bearer x"})
    assert isinstance(request, Request)
    assert request.unredirected_hdrs == {"Authorization": "Bearer x"}
    assert "Authorization" not in request.headers


def test_a_killed_process_is_continued(server: FileServer, tmp_path: Path) -> None:
    server.pace = 0.02
    file = wanted(server, tmp_path)
    program = (
        "import sys; from pathlib import Path; from dataset_builders.downloads.fetch import *; "
        "fetch(Wanted(Path(sys.argv[1]), [sys.argv[2]], int(sys.argv[3]), sys.argv[4]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, file.target, file.urls[0], str(len(CONTENT)), SUM]
    )
    until = time.monotonic() + 60
    while not (file.part.exists() and file.part.stat().st_size > 5000):
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not file.target.exists()
    server.pace = 0.0
    fetch(file, None, QUICK)
    assert file.target.read_bytes() == CONTENT
    begin = int(server.requests[-1][1].removeprefix("bytes=").rstrip("-"))
    assert 5000 <= begin < len(CONTENT)
