"""A loopback server of files with the faults of real ones: cuts, stalls, no ranges, errors."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """What is served, by path, and how.

    Attributes:
        url: The address, without a slash at its end.
        files: Content by path.
        cuts: By path, bytes after which the next connection is closed; one entry a connection.
        stalls: By path, bytes after which nothing more is sent.
        status: By path, an HTTP status instead of the file.
        ranges: Whether ranges are served.
        kind: Content type.
        pace: Seconds between blocks of 1,000 bytes.
        requests: Path and range of every GET.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    kind: str = "application/octet-stream"
    pace: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


def _handler(served: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            served.requests.append((self.path, self.headers.get("Range", "")))
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            content = served.files.get(self.path)
            status = served.status.get(self.path, 200 if content is not None else 404)
            if status != 200 or content is None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin, total = 0, len(content)
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            tag = served.tags.get(self.path, "")
            same = self.headers.get("If-Range", tag) == tag
            if asked and served.ranges and same:
                begin = int(asked[1])
                if begin >= total:
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(total - begin))
            self.send_header("Content-Type", served.kind)
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            if body:
                self._send(content[begin:], begin)

        def _send(self, content: bytes, begin: int) -> None:
            cuts = served.cuts.get(self.path)
            if cuts:
                self.wfile.write(content[: cuts.pop(0) - begin])
                self.close_connection = True
                return
            stop = served.stalls.get(self.path)
            if stop is not None:
                self.wfile.write(content[: max(0, stop - begin)])
                self.wfile.flush()
                served.closing.wait(10)
                return
            for start in range(0, len(content), 1000 if served.pace else len(content) or 1):
                size = 1000 if served.pace else len(content)
                self.wfile.write(content[start : start + size])
                time.sleep(served.pace)

        def log_message(self, format: str, *values: Any) -> None:
            del format, values

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed leaves a broken pipe, which is not a fault here."""


@contextmanager
def serving_files(files: dict[str, bytes] | None = None) -> Iterator[FileServer]:
    """Serve files; yields the server, whose faults can be set at any time."""
    served = FileServer(files=dict(files or {}))
    server = _Server(("127.0.0.1", 0), _handler(served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
