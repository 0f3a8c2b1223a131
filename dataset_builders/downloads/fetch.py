"""Fetch a file over HTTP: resumed after an interruption, checked, and never half written.

A file grows as a hidden `.part` beside its destination, and is renamed to it once its size and
SHA-256 are right. What a killed process leaves is continued by the next one with a range request.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dataset_builders.errors import DownloadError

_CHUNK = 1 << 16
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HINTS = {401: "access needs a login", 403: "access is refused", 404: "not found", 410: "gone"}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Patience:
    """When to stop trying to download a file.

    Attributes:
        stall: Seconds without a byte after which a connection is closed.
        tries: Consecutive connections without progress.
        pause: Seconds between them.
    """

    stall: float = 60.0
    tries: int = 3
    pause: float = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        target: Where to store it.
        urls: Addresses to try in order.
        size: In bytes, or None if not known.
        sha256: In hexadecimal, or None if not known.
        headers: Request headers, which are not sent on to another host after a redirect.
    """

    target: Path
    urls: Sequence[str]
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] | None = None

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def tag(self) -> Path:
        """The server's version of the unfinished file (`ETag`), and its address."""
        return self.target.with_name(f".{self.target.name}.etag")


Progress = Callable[[int], None]
"""Called with the number of bytes that have arrived; negative when a transfer starts again."""


class _Interrupted(Exception):
    """A transfer stopped early; another try may continue it."""


def fetch(
    wanted: Wanted, progress: Progress | None = None, patience: Patience | None = None
) -> tuple[str, str]:
    """Fetch a file from the first of its addresses that serves it.

    Returns:
        The address, and the SHA-256 of the file in hexadecimal.

    Raises:
        DownloadError: No address serves it, or what they serve is another file; one line.
        OSError: It cannot be written.
    """
    wanted.target.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in wanted.urls:
        try:
            if not _is_whole(wanted):
                _transfer(wanted, url, progress or (lambda _: None), patience or Patience())
            digest = _checked(wanted)
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
            continue
        wanted.part.replace(wanted.target)
        wanted.tag.unlink(missing_ok=True)
        return url, digest
    raise DownloadError(f"{wanted.target.name}: {'; '.join(reasons)}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remote_size(url: str, headers: Mapping[str, str] | None = None, timeout: float = 20.0) -> int:
    """Return the size of a file as its server states it, in bytes; 0 if it does not.

    Raises:
        DownloadError: The server cannot be reached or has no such file.
    """
    request = _request(url, headers)
    request.method = "HEAD"
    try:
        with urlopen(request, timeout=timeout) as response:
            return int(response.headers.get("Content-Length") or 0)
    except (HTTPError, OSError, HTTPException) as error:
        raise DownloadError(f"{url}: {_reason(error)}") from error


def _transfer(wanted: Wanted, url: str, progress: Progress, patience: Patience) -> None:
    """Fill the unfinished file from one address, in as many connections as progress is made in."""
    idle = 0
    while True:
        before = _size(wanted.part)
        try:
            _connect(wanted, url, progress, patience.stall)
            return
        except HTTPError as error:
            error.close()
            if error.code == 416:  # What is there does not fit the server's file.
                _restart(wanted, progress)
            elif error.code not in _TEMPORARY:
                raise DownloadError(_reason(error)) from error
            reason = _reason(error)
        except (_Interrupted, OSError, HTTPException) as error:
            if isinstance(error, OSError) and _is_local(error):
                raise
            reason = _reason(error)
        idle = 0 if _size(wanted.part) > before else idle + 1
        if idle >= patience.tries:
            kept = _size(wanted.part)
            more = f"; {kept:,} bytes are kept, run the command again to continue" if kept else ""
            raise DownloadError(f"{reason}{more}")
        time.sleep(patience.pause)


def _is_whole(wanted: Wanted) -> bool:
    """Whether a process was killed between the last byte and the renaming."""
    return wanted.sha256 is not None and _size(wanted.part) == wanted.size


def _connect(wanted: Wanted, url: str, progress: Progress, stall: float) -> None:
    request = _request(url, wanted.headers)
    begin = _resume(wanted, url, request)
    with cast("HTTPResponse", urlopen(request, timeout=stall)) as response:
        _check_kind(response, wanted)
        begin, total = _place(response, begin)
        if total is not None and wanted.size is not None and total != wanted.size:
            raise DownloadError(f"found a file of {total:,} bytes, expected {wanted.size:,}")
        _check_disk(wanted, (total or wanted.size or 0) - begin)
        kept = _size(wanted.part)
        progress(begin - kept if kept > begin else 0)
        wanted.tag.write_text(f"{url}\n{response.headers.get('ETag') or ''}\n", "utf-8")
        with wanted.part.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            while block := response.read1(_CHUNK):
                file.write(block)
                progress(len(block))
    found, expected = _size(wanted.part), total or wanted.size
    if expected is not None and found < expected:
        raise _Interrupted(f"the connection was cut at {found:,} of {expected:,} bytes")


def _request(url: str, headers: Mapping[str, str] | None) -> Request:
    request = Request(url, headers={"User-Agent": "agenttuning", "Accept-Encoding": "identity"})
    for name, value in (headers or {}).items():
        # A redirect to a storage host must not carry the credentials of this one.
        request.add_unredirected_header(name, value)
    return request


def _resume(wanted: Wanted, url: str, request: Request) -> int:
    """Ask for the rest of an unfinished file, if it is certain to be of the same one."""
    have = _size(wanted.part)
    if not have:
        return 0
    lines = wanted.tag.read_text("utf-8").splitlines() if wanted.tag.exists() else []
    tag = lines[1] if len(lines) > 1 and lines[0] == url else ""
    if tag and not tag.startswith("W/"):
        request.add_header("If-Range", tag)
    elif wanted.sha256 is None:
        return 0
    if wanted.size is not None and have >= wanted.size:
        return 0
    request.add_header("Range", f"bytes={have}-")
    return have


def _place(response: HTTPResponse, begin: int) -> tuple[int, int | None]:
    """Return where the response's content begins in the file, and the file's size if stated."""
    length = response.headers.get("Content-Length")
    if response.status != 206:  # Also a server that ignores ranges: it begins anew.
        return 0, int(length) if length else None
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != begin:
        raise DownloadError("the server answers a range request with another range")
    return begin, int(found[2])


def _check_kind(response: HTTPResponse, wanted: Wanted) -> None:
    kind = response.headers.get_content_type()
    if kind == "text/html" and wanted.target.suffix not in (".html", ".htm"):
        raise DownloadError("found a web page, such as one that asks for a login, expected a file")


def _check_disk(wanted: Wanted, needed: int) -> None:
    free = shutil.disk_usage(wanted.target.parent).free
    if needed > free:
        raise DownloadError(
            f"{wanted.target.parent} has {free:,} bytes free, {needed:,} are needed"
        )


def _checked(wanted: Wanted) -> str:
    found, digest = _size(wanted.part), sha256_of(wanted.part)
    if wanted.size is not None and found != wanted.size:
        problem = f"found {found:,} bytes, expected {wanted.size:,}"
    elif wanted.sha256 is not None and digest != wanted.sha256:
        problem = f"found SHA-256 {digest}, expected {wanted.sha256}"
    else:
        return digest
    wanted.part.unlink()
    wanted.tag.unlink(missing_ok=True)
    raise DownloadError(f"{problem}; the file was removed")


def _restart(wanted: Wanted, progress: Progress) -> None:
    progress(-_size(wanted.part))
    wanted.part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_local(error: OSError) -> bool:
    """Whether an error is of this machine's disk, which another attempt cannot fix."""
    return not isinstance(error, URLError | TimeoutError | ConnectionError) and bool(error.filename)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} ({_HINTS.get(error.code, error.reason)})"
    if isinstance(error, URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    if isinstance(error, TimeoutError):
        return "the server sends nothing (timeout)"
    if isinstance(error, OSError):
        return f"cannot connect: {error.strerror or error}"
    return str(error) or type(error).__name__
