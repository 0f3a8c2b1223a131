"""The process of one part: `python -m benchmarks.gpu.process CASE.json RESULT.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure a case and write what was measured after each of its rounds."""
    given, written = (Path(argument) for argument in sys.argv[1:])
    case = json.loads(given.read_text("utf-8"))
    # Imported by kind, so that a missing package of one part does not stop another.
    match case["kind"]:
        case "speed":
            from benchmarks.gpu.training import compare_speed as measure
        case "isolation":
            from benchmarks.gpu.isolation import measure_isolation as measure
        case "evaluators":
            from benchmarks.gpu.evaluating import measure_evaluators as measure
        case "memory":
            from benchmarks.gpu.memory_grid import measure_memory as measure
        case kind:
            raise ValueError(f"kind: found {kind!r}")

    import torch

    def save(measured: dict[str, Any]) -> None:
        new = written.with_suffix(".new")
        new.write_text(json.dumps(measured), "utf-8")
        new.replace(written)  # Atomic: the process may be killed at any moment.

    measure(case, given.parent, "cuda" if torch.cuda.is_available() else "cpu", save)


if __name__ == "__main__":
    main()
