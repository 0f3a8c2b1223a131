"""Fixtures of the environments' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dataset_builders.sandbox import engines
from dataset_builders.sandbox.base import Limits, Sandbox
from tests.support.boxes import needs_box


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A fresh box."""
    needs_box()
    made = engines.open_sandbox()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def small_box() -> Iterator[Sandbox]:
    """A box with little of everything."""
    needs_box()
    mebi = 1024**2
    limits = Limits(memory=96 * mebi, disk=16 * mebi, files=2_000, processes=40, seconds=10)
    made = engines.open_sandbox(limits)
    try:
        yield made
    finally:
        made.close()
