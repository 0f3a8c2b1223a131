"""Pause the cyclic garbage collector during allocation-heavy work."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection, for work that creates many objects and few cycles.

    The collector scans all objects of the process (a few hundred thousand if trainers are imported)
    whenever their number has grown. Memory stays bounded, since nearly all objects of the work are
    freed by reference counting.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
