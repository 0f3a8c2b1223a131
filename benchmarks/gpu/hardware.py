"""Print device, driver and versions as JSON: `python -m benchmarks.gpu.hardware`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from typing import Any

import torch

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes"),
    *("triton", "flash_attn", "agenttuning-plugin"),
)


def hardware() -> dict[str, Any]:
    """Return the first GPU, or "CPU" as the device; and versions."""
    found: dict[str, Any] = {
        "device": "CPU",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "driver": _driver(),
            "cuda": torch.version.cuda,
        }
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()


if __name__ == "__main__":
    print(json.dumps(hardware()))
