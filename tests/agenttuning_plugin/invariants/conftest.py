"""Inputs of the runs that are compared."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Model and data of all runs."""
    for name in ("torch", "safetensors", "peft"):
        pytest.importorskip(name, reason="pip install 'agenttuning-plugin[trl]'")
    from tests.support.training_cells import make_inputs

    return make_inputs(tmp_path_factory.mktemp("invariants"))


@pytest.fixture(scope="module")
def trainer(request: pytest.FixtureRequest) -> str:
    """Name of a trainer, by a parameter of the test's module."""
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name
