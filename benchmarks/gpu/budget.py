"""Division of the benchmark's time among its parts, and the processes that run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.cases import Part

RESERVE = 5.0
"""Seconds that a part may take to end after its measurement is to stop."""


def allowance(part: Part, later: Sequence[Part], left: float) -> float:
    """Return the seconds that a part may take.

    What is left is divided in proportion to what the parts are planned to take; so time that
    earlier parts did not use goes to the later ones, and time that they overran is taken
    from all of them.

    Args:
        part: The part to run next.
        later: Parts that follow.
        left: Seconds left for all of them.
    """
    planned = part.seconds + sum(each.seconds for each in later)
    return max(0.0, left * part.seconds / planned)


def run_part(part: Part, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a part in a process of its own and return its result.

    The process writes what it has measured after every round. A part that fails, or is ended for
    its time, gives what it had written until then, with the reason.

    Args:
        part: The part.
        seconds: Time after which it is ended.
        folder: Folder for its files, with the training data.

    Returns:
        `status` ("done", "failed" or "out of time"), `seconds`, `allowed_seconds`, `case`, and
        `measured`; with the reason `error` if it did not end well.
    """
    written, given = folder / f"{part.name}.json", folder / f"{part.name}.case.json"
    written.unlink(missing_ok=True)
    case = {**part.case, "kind": part.kind, "deadline": time.time() + seconds - RESERVE}
    given.write_text(json.dumps(case), "utf-8")
    command = [sys.executable, "-m", "benchmarks.gpu.process", str(given), str(written)]
    log = folder / f"{part.name}.log"
    begun = time.monotonic()
    status, error = _run(command, seconds, log)
    measured = json.loads(written.read_text("utf-8")) if written.is_file() else None
    found = {
        "status": status,
        "seconds": round(time.monotonic() - begun, 1),
        "allowed_seconds": round(seconds, 1),
        "case": part.case,
        "measured": measured,
    }
    return found | ({"error": error} if error else {})


def _run(command: list[str], seconds: float, log: Path) -> tuple[str, str]:
    """Run a command in a session of its own; return its status and why it did not end well."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "out of time", f"ended after {seconds:.0f} s, its share of the time"
    if code == 0:
        return "done", ""
    return "failed", _reason(code, log.read_text("utf-8", errors="replace"))


def _reason(code: int, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return f"{how}: {last[:400]}"
