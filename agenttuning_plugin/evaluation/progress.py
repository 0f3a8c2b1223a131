"""Progress of `agenttuning evaluate`: bars on a terminal, lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from agenttuning_plugin.console import errors, plain

_SECONDS_BETWEEN_LINES = 30.0


def with_bars(run: Callable[[Any], Any]) -> Any:
    """Run a function with progress bars, one per task name."""
    from rich.progress import Progress

    if not errors.is_terminal:
        return run(_lines)
    with Progress(console=errors, transient=True) as progress:

        def bar(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        return run(bar)


def _lines(name: str) -> Callable[[int, int], None]:
    """Progress as log lines, for logs without bars."""
    last_line_at = -math.inf

    def line(done: int, total: int) -> None:
        nonlocal last_line_at
        now = time.monotonic()
        if done == total or now - last_line_at >= _SECONDS_BETWEEN_LINES:
            last_line_at = now
            errors.print(plain(f"{name}: {done} of {total}"))

    return line
