"""What the fixture `serve` is."""

from __future__ import annotations

from collections.abc import Callable

from dataset_builders.instructions.run_io import Writer
from tests.support.endpoint import Endpoint, Messages

Serve = Callable[[Callable[[Messages], str]], tuple[Writer, Endpoint]]
