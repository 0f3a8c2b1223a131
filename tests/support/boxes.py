"""Boxes for tests; where none can be made the test is skipped with the reason."""

from __future__ import annotations

import pytest

from dataset_builders.sandbox import engines


def needs_box() -> None:
    if reason := engines.missing():
        pytest.skip(f"no box: {reason}")
