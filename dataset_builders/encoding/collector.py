"""Work during which the cyclic garbage collector rests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the collector from running, for work that makes many objects and few cycles.

    It walks over all objects of the process (a few hundred thousand where trainers are
    imported) each time that their number has grown. Memory is bounded by the work within,
    since nearly all of its objects are freed by their reference counts.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
