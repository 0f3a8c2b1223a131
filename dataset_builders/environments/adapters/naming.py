"""Names of environments that are named by a reference."""

from __future__ import annotations

import re

from dataset_builders.environments.class_checks import check_name


def class_name(reference: str) -> str:
    """Return the name of a reference's environment: `_` for all but letters and digits.

    Args:
        reference: Such as "reasoning_gym:leg_counting", for `reasoning_gym_leg_counting`.

    Raises:
        ConfigError: It is no name.
    """
    name = re.sub(r"\W+", "_", reference)
    check_name(reference, name)
    return name
