"""Choose the device of a model that is loaded for evaluation or a merge."""

from __future__ import annotations

import gc
from contextlib import suppress

from dataset_builders.errors import ConfigError


def usable_device(name: str | None) -> str:
    """Return the name of the device to compute on.

    Args:
        name: Such as "cuda:1"; None for the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch does not know it, or cannot use it here.
    """
    import torch

    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"`device`: found {device!r}, which torch cannot use here: {reason}"
        ) from error
    return device


def free_memory() -> None:
    """Free the memory of models that are no longer used, also that which torch keeps on a GPU."""
    gc.collect()
    with suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
