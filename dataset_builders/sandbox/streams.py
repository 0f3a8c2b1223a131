"""Read a process's output, bounded in bytes and in time."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field

_CHUNK = 65536


@dataclass(slots=True)
class Window:
    """The first and the last bytes of a stream; the middle is dropped.

    Attributes:
        keep: Bytes kept of the beginning.
        reach: Bytes kept of the end.
        total: Bytes read so far.
    """

    keep: int
    reach: int = 0
    total: int = 0
    head: bytearray = field(default_factory=bytearray)
    tail: bytes = b""

    def add(self, data: bytes) -> None:
        """Append bytes that were read."""
        self.total += len(data)
        room = self.keep - len(self.head)
        if room > 0:
            self.head += data[:room]
        if self.reach:
            self.tail = (self.tail + data)[-self.reach :]

    def text(self) -> str:
        """Return the beginning, decoded."""
        return self.head.decode("utf-8", "replace")


def read_some(descriptor: int) -> bytes | None:
    """Return what can be read now; b"" at the end of the stream, None if nothing is available."""
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def communicate(
    process: subprocess.Popen[bytes], data: bytes, keep: int, flood: int, seconds: float
) -> tuple[Window, Window, str]:
    """Feed a process and read its output until it ends.

    It counts as ended when it has exited, even if its children still hold its streams.

    Args:
        process: Has pipes for all three streams.
        data: Its input.
        keep: Bytes kept of each stream.
        flood: Bytes after which reading stops.
        seconds: Time after which reading stops.

    Returns:
        Both streams, and why waiting stopped: "timed_out", "flooded" or "".
    """
    assert process.stdout
    assert process.stderr
    windows = {process.stdout.fileno(): Window(keep), process.stderr.fileno(): Window(keep)}
    out, err = windows.values()
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in windows:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(pidfd, selectors.EVENT_READ)
            feed = _Feed(process, data, selector)
            return out, err, _pump(selector, windows, pidfd, feed, flood, seconds)
    finally:
        os.close(pidfd)


class _Feed:
    """Writes the input as fast as the process reads it, then closes it."""

    def __init__(
        self, process: subprocess.Popen[bytes], data: bytes, selector: selectors.BaseSelector
    ) -> None:
        assert process.stdin
        self._stream, self._left, self._selector = process.stdin, memoryview(data), selector
        self.descriptor = process.stdin.fileno()
        os.set_blocking(self.descriptor, False)
        selector.register(self.descriptor, selectors.EVENT_WRITE)

    def write(self) -> None:
        try:
            self._left = self._left[os.write(self.descriptor, self._left[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            self._left = self._left[:0]
        if not self._left:
            self._selector.unregister(self.descriptor)
            with contextlib.suppress(OSError):
                self._stream.close()


def _pump(
    selector: selectors.BaseSelector,
    windows: dict[int, Window],
    pidfd: int,
    feed: _Feed,
    flood: int,
    seconds: float,
) -> str:
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return "timed_out"
        ready = {key.fd for key, _ in selector.select(left)}
        if feed.descriptor in ready:
            feed.write()
        for descriptor in ready & windows.keys():
            data = read_some(descriptor)
            if data:
                windows[descriptor].add(data)
            elif data is not None:
                selector.unregister(descriptor)
        if any(window.total > flood for window in windows.values()):
            return "flooded"
        # Only once nothing is left to read: the exit may be seen before the last bytes.
        if ready == {pidfd}:
            return ""
