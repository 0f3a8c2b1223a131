"""Choose the device of a model that is loaded for evaluation or a merge."""

from __future__ import annotations

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
