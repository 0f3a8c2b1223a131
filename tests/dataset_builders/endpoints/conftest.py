"""Fixtures of the endpoints' tests."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.support.endpoint import Endpoint


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    # The first request of a process loads half of the client, which short timeouts feel.
    if find_spec("openai") is not None:
        from tests.dataset_builders.endpoints.test_faults import ask

        ask(Endpoint(lambda messages: "Hi"), timeout=60)
