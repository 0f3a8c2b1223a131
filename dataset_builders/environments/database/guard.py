"""Run a server for the lifetime of another process; a script, started by path.

    python guard.py FOLDER PROGRAM ARGUMENT...

The other process holds the write end of this one's standard input. When it ends, even by kill -9,
the pipe closes: the program is stopped and the folder removed. Needs only the standard library, so
it starts fast.
"""

import shutil
import signal
import subprocess
import sys
import threading

_SECONDS_TO_STOP = 10


def main() -> int:
    """Run the program; return its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_when_alone, args=(process,), daemon=True).start()
    status = process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return status


def _stop_when_alone(process: "subprocess.Popen[bytes]") -> None:
    sys.stdin.buffer.read()
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
