"""Memory that `agenttuning_plugin.estimates` predicts for a benchmarked run."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any


def predicted_bytes(case: dict[str, Any], config: Any) -> int | None:
    """Return the predicted peak in bytes, or None without the estimator."""
    if find_spec("agenttuning_plugin.estimates") is None:
        return None
    raise NotImplementedError
