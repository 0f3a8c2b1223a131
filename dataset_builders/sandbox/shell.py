"""Persistent bash that receives scripts through its standard input.

Every script is followed by a line that writes a random mark. Everything before the mark is the
script's output. No terminal is involved: a box cannot write to ours, and the output contains no
echo and no prompt.
"""

from __future__ import annotations

import os
import re
import secrets
import selectors
import shlex
import subprocess
import time

from dataset_builders.sandbox.base import Limits, ShellResult
from dataset_builders.sandbox.streams import Window, read_some

COMMAND = ("/bin/bash", "--login")
_PING_SECONDS = 5.0


def _write_mark(mark: str, status: str) -> str:
    # Without standard error: after `set -x` bash would show this line to the model.
    return f"{{ command printf '\\n%s %d\\n' {mark} {status}; }} 2>&-\n"


def _ending(mark: str) -> re.Pattern[bytes]:
    return re.compile(rb"\n" + mark.encode() + rb" (\d+)\n")


def _cut(window: Window, ending: re.Pattern[bytes]) -> int | None:
    """Split the mark off the end of the output; return the status."""
    found = ending.search(window.tail)
    if found is None:
        return None
    del window.head[window.total - (len(window.tail) - found.start()) :]
    return int(found[1])


class Shell:
    """A running shell, driven through its process's pipes.

    Args:
        process: Bash, with pipes for input and output; both its outputs are one.
        limits: Limits of its output and of a script's time.
    """

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._limits = process, limits
        self._input, self._output = process.stdin.fileno(), process.stdout.fileno()
        self._before = b""
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    def answers(self) -> bool:
        """Whether the shell still reads its input; a killed one does not."""
        mark = secrets.token_hex(16)
        line = _write_mark(mark, "0").encode()
        window, ending = Window(self._limits.output, reach=64), _ending(mark)
        if self._exchange(line, ending, window, None, _PING_SECONDS):
            return False
        # Output of background processes since then belongs to the next script.
        _cut(window, ending)
        self._before = bytes(window.head)
        return True

    def run(
        self, script: str, silence: float | None, timeout: float | None, keep_input: bool
    ) -> ShellResult:
        """Run a script; see `Sandbox.run_shell`. A timed-out script keeps running."""
        mark = secrets.token_hex(16)
        source = shlex.quote(script.replace("\0", ""))
        feed = "" if keep_input else " < /dev/null"
        line = f"eval {source}{feed}\n{_write_mark(mark, '$?')}"
        ending = _ending(mark)
        window = Window(self._limits.output, reach=64)
        window.add(self._before)
        timeout = self._limits.seconds if timeout is None else timeout
        state = self._exchange(line.encode("utf-8", "replace"), ending, window, silence, timeout)
        status = _cut(window, ending)
        return ShellResult(window.text(), status, state == "timed_out", state == "flooded")

    def _exchange(
        self,
        line: bytes,
        ending: re.Pattern[bytes],
        window: Window,
        silence: float | None,
        timeout: float,
    ) -> str:
        """Write the line and read up to its mark; return why that ended early, or ""."""
        deadline = time.monotonic() + timeout
        heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._input, selectors.EVENT_WRITE)
            while ending.search(window.tail) is None:
                until = deadline if silence is None else min(deadline, heard + silence)
                if (left := until - time.monotonic()) <= 0:
                    return "timed_out"
                for key, _ in selector.select(left):
                    if key.fd == self._input:
                        line = self._write(line)
                        if not line:
                            selector.unregister(self._input)
                        continue
                    data = read_some(self._output)
                    if data == b"":
                        return "ended"
                    if data:
                        heard = time.monotonic()
                        window.add(data)
                if window.total > self._limits.flood:
                    return "flooded"
        return ""

    def _write(self, line: bytes) -> bytes:
        try:
            return line[os.write(self._input, line[:65536]) :]
        except BlockingIOError:
            return line
        except OSError:
            return b""
