"""GPUs that the arms of a sweep are distributed over, found without loading torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus_of(given: str | None) -> tuple[str, ...]:
    """Return the GPUs named by an option, such as "0,1"; without one, the visible ones."""
    return visible_gpus() if given is None else _parts(given)


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Args:
        environment: Environment variables.
    """
    if (given := environment.get(_VISIBLE)) is not None:
        return _parts(given)
    if (program := shutil.which("nvidia-smi", path=environment.get("PATH"))) is None:
        return ()
    done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    if done.returncode:
        return ()
    number = sum(line.startswith("GPU ") for line in done.stdout.splitlines())
    return tuple(map(str, range(number)))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "-1"))
