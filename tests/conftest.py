"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("AGENTTUNING_SHARED") or REPO.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is absent (set AGENTTUNING_SHARED)")
    return folder
