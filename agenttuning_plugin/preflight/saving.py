"""Check a run's output folder: earlier checkpoints in it, and room for new ones."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.preflight.device import size


@dataclass(frozen=True, slots=True)
class Saving:
    """What a run writes.

    Attributes:
        folder: Its output folder.
        resumes: Whether it continues from checkpoints that are there.
        interval: Optimizer steps between checkpoints, as a share of the run below 1; none: no
            checkpoint, only the final model.
        limit: Checkpoints that are kept; none: all.
    """

    folder: Path
    resumes: bool
    interval: float | None
    limit: int | None


def check_saving(saving: Saving, steps: int | None, facts: dict[str, Any]) -> Iterator[Finding]:
    """Find earlier checkpoints in the output folder, and compare the run's with the free space.

    Args:
        saving: What the run writes.
        steps: Its optimizer steps, if they are known.
        facts: Has the estimate `memory`, if there is one; receives `disk`.
    """
    folder = saving.folder.expanduser()
    yield from _earlier(saving, folder)
    existing = next((each for each in (folder, *folder.absolute().parents) if each.exists()), None)
    if existing is None or "memory" not in facts:
        return
    free = shutil.disk_usage(existing).free
    model, checkpoint = _sizes(facts["memory"])
    number = _number(saving, steps)
    needed = model + number * checkpoint
    facts["disk"] = {
        "needed": needed,
        "free": free,
        "checkpoints": number,
        "checkpoint": checkpoint,
        "model": model,
    }
    made = f"{number} of {size(checkpoint)} and " if number else "none; "
    detail = f"{made}a model of {size(model)} (estimate); {size(free)} free"
    if needed > free:
        detail += ": too little; set a smaller save_total_limit or another output_dir"
        yield Finding("checkpoints", detail, "warning")
    else:
        yield Finding("checkpoints", detail)


def _earlier(saving: Saving, folder: Path) -> Iterator[Finding]:
    found = sorted(
        (each for each in folder.glob("checkpoint-*") if each.is_dir()),
        key=lambda each: each.stat().st_mtime,
    )
    if not found:
        return
    last = found[-1].name
    if saving.resumes:
        yield Finding("output folder", f"{saving.folder}: training resumes from its checkpoints")
        return
    detail = (
        f"{saving.folder}: holds {last} of an earlier run; training starts at step 0 and replaces "
        f"its checkpoints; resume_from_checkpoint: {saving.folder}/{last} continues that run, "
        "another output folder keeps it"
    )
    yield Finding("output folder", detail, "warning")


def _number(saving: Saving, steps: int | None) -> int:
    """Return the most checkpoints at one time; one is written before the oldest is deleted."""
    if saving.interval is None:
        return 0
    if saving.interval < 1:
        made = math.ceil(1 / saving.interval)
    else:
        made = 1 if steps is None else math.ceil(steps / saving.interval)
    return made if saving.limit is None else min(made, saving.limit + 1)


def _sizes(memory: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of the final model and of a checkpoint, which has optimizer states too."""
    parts = memory["parts"]
    trained = (parts.get("adapters") or parts.get("weights", 0)) * memory["weight_shards"]
    states = parts.get("optimizer states", 0) + parts.get("float32 copy", 0)
    return trained, trained + states * memory["state_shards"]
