"""Fixtures of WebShop's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset_builders.environments.webshop.environment import WebShopEnvironment
from tests.support.webshop_samples import write_small_catalogue


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(folder))
        patch.delenv("AGENTTUNING_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def catalogue(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_catalogue(tmp_path_factory.mktemp("webshop"))


@pytest.fixture
def world(catalogue: Path) -> Iterator[WebShopEnvironment]:
    environment = WebShopEnvironment(catalogue)
    yield environment
    environment.close()
