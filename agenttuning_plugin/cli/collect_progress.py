"""Progress of a collection, as a live display or as plain lines without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from agenttuning_plugin.console import plain
from dataset_builders.collection.engine import CollectionEngine
from dataset_builders.collection.progress import CollectionProgress
from dataset_builders.endpoints.endpoint import Endpoint

_REFRESH = 0.25  # seconds, on a terminal
_LINES = 5.0


def facts(tally: CollectionProgress, engine: CollectionEngine) -> dict[str, str]:
    """Return the displayed values, by name."""
    spent = tally.spent
    known = tally.priced and spent.cost is not None
    cost = f"{spent.cost:.4f}" if known else "unknown"
    if known and tally.cost_per_kept is not None and spent.cost:
        cost += f" ({tally.cost_per_kept:.4f} per kept trajectory)"
    found = {
        "done": f"{tally.done} of {tally.total}",
        "kept": str(tally.kept),
        "dropped": ", ".join(f"{name} {n}" for name, n in sorted(tally.reasons.items())) or "none",
        "rate": f"{tally.rate:.1f} tasks per minute",
        "in play": str(engine.in_play),
    }
    if tally.asks:
        found["tokens"] = f"{spent.tokens:,} ({spent.prompt_tokens:,} read)"
        found["cost"] = cost
        found["in play"] += f", up to {engine.limit.limit} requests at once"
    if engine.retries:
        tried = ", ".join(f"{name} {n}" for name, n in sorted(engine.retries.items()))
        found["retried"] = tried
    if engine.limit.waits:
        found["waiting"] = f"{engine.limit.waits:.0f} s, as requested by the endpoint"
    if engine.stopped:
        found["stopping"] = engine.stopped
    return found


@dataclass
class Progress:
    """Shows the progress of a collection while its event loop runs; see `showing`."""

    console: Console
    endpoint: Endpoint | None = None
    live: Live | None = None

    def watch(self, tally: CollectionProgress, engine: CollectionEngine) -> None:
        """Start the display; must be called on the event loop, before the first request."""
        if self.endpoint is not None:
            # Without --base-url, or with a variable set, the endpoint may differ from what the user
            # expects.
            line = f"endpoint {self.endpoint}: {tally.total - tally.done} of {tally.total} tasks"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()
        self._show(tally, engine)

    def _show(self, tally: CollectionProgress, engine: CollectionEngine) -> None:
        found = facts(tally, engine)
        if self.live is not None:
            table = Table.grid(padding=(0, 2))
            for name, value in found.items():
                table.add_row(f"[dim]{name}[/dim]", plain(value))
            self.live.update(table, refresh=True)
        else:
            line = "; ".join(f"{name} {value}" for name, value in found.items())
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        wait = _REFRESH if self.live is not None else _LINES
        asyncio.get_running_loop().call_later(wait, self._show, tally, engine)


@contextmanager
def showing(console: Console, endpoint: Endpoint | None = None) -> Iterator[Progress]:
    """Show the endpoint, then progress, within the context."""
    progress = Progress(console, endpoint)
    try:
        yield progress
    finally:
        if progress.live is not None:
            progress.live.stop()
