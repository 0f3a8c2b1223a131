"""Estimate a recipe: its launch command and header say on how many GPUs it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.estimates.devices import GB, PEAKS, Device
from agenttuning_plugin.estimates.known_models import model_config_of
from agenttuning_plugin.estimates.memory import MemoryEstimate, estimate_memory
from agenttuning_plugin.estimates.recipe_shape import shape_of
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.estimates.speed import TimeEstimate, estimate_time

REFERENCE = "H100"
"""GPU whose time is stated for every recipe: the one that `UTILISATION` was measured on."""


@dataclass(frozen=True)
class RecipeEstimate:
    """What a recipe is estimated to take.

    Attributes:
        cfg: The YAML recipe; a TRL script has that of the recipe which its docstring names.
        header: Its opening comment or docstring.
        shape: Its shape.
        memory: Of one process.
        time: On as many GPUs of the kind `REFERENCE` as the recipe has.
    """

    cfg: dict[str, Any]
    header: str
    shape: TrainingShape
    memory: MemoryEstimate
    time: TimeEstimate | None

    def memory_line(self) -> str:
        """Return the header's statement of memory."""
        each = " a GPU" if self.shape.world > 1 else ""
        return f"estimate {self.memory.total / GB:.0f} GB{each}"

    def time_line(self) -> str:
        """Return the header's statement of time."""
        if self.time is None:
            return "not known"
        low, high = (hours_of(seconds) for seconds in self.time.seconds)
        gpus = f"{self.shape.world} {REFERENCE}s" if self.shape.world > 1 else f"one {REFERENCE}"
        # Unpacked rows have a conversation each, most of them shorter than the limit.
        span = f"{low} to {high}" if self.shape.packed else f"up to {high}"
        return f"estimate {span} on {gpus}"


def hours_of(seconds: float) -> str:
    """Return hours with two digits, or minutes below one hour."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36000 else f"{seconds / 3600:.0f} h"


def estimate_recipe(path: Path) -> RecipeEstimate:
    """Estimate a shipped recipe, YAML or TRL script.

    Raises:
        ConfigError: Its base model is not known here, or cannot be built.
    """
    header = header_of(path)
    script = path.suffix == ".py"
    if script:  # the same run as a YAML recipe beside it
        (twin,) = set(re.findall(r"[\w.-]+\.yaml", header))
        cfg = read_recipe(path.with_name(twin))
    else:
        cfg = read_recipe(path)
    shape = shape_of(cfg, world=processes_of(header, cfg))
    if script:
        packed = "packing=True" in path.read_text("utf-8")
        shape = replace(shape, head="chunked", packed=packed)
    name = str(cfg["base_model"])
    if Path(name).name == "SmolLM2-135M-Instruct":  # the demo's folder, which may not exist yet
        name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config = model_config_of(name)
    gpu = Device("cuda", REFERENCE, 80 * 2**30, peak=PEAKS[REFERENCE])
    return RecipeEstimate(
        cfg,
        header,
        shape,
        estimate_memory(config, shape),
        estimate_time(config, shape, int(cfg["max_steps"]), gpu),
    )


def header_of(path: Path) -> str:
    """Return a recipe's opening comment or docstring, as one text without marks."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text.split('"""')[1]
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def processes_of(header: str, cfg: dict[str, Any]) -> int:
    """Return the number of processes of a recipe's command, one for each GPU."""
    if cfg.get("use_ray"):
        return int(cfg["ray_num_workers"])
    return stated_processes(header) or 1


def stated_processes(text: str) -> int | None:
    """Return the number in a launch command, as `--num_processes 8`; None if it states none."""
    found = re.search(r"--num[-_]processes[ =](\d+)", text)
    return int(found[1]) if found else None
