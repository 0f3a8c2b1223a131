"""A loopback endpoint that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dataset_builders.endpoints.endpoint import Endpoint as Address
from dataset_builders.instructions.run_io import Writer
from tests.support.endpoint import Endpoint, Messages, serving
from tests.support.served import Serve


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves replies; returns what asks for them and what was asked."""
    pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")
    monkeypatch.delenv("AGENTTUNING_DATA", raising=False)
    with ExitStack() as stack:

        def start(reply: Callable[[Messages], str]) -> tuple[Writer, Endpoint]:
            endpoint = stack.enter_context(serving(Endpoint(reply=reply)))
            return Writer(Address("writer", endpoint.url)), endpoint

        yield start
