"""Convert a run length in passes over the general data to optimizer steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from agenttuning_plugin.config.recipe import AgentTuningSection
from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from dataset_builders.mixing.preparation import EncodedSources


def steps_of_passes(
    section: AgentTuningSection, prepared: EncodedSources, batch: int, packed_length: int | None
) -> int:
    """Return the optimizer steps for the section's number of passes over the general data.

    Exact to a step without packing. With packing the rows are taken to be full, so a pass ends
    some 0.2 % early.

    Args:
        section: The recipe's section, with `general_passes`.
        prepared: The encoded sources.
        batch: Rows in a global batch; with packing, packed rows.
        packed_length: Tokens of a packed row, or none without packing.

    Raises:
        ConfigError: No general data is drawn at the end, so that a pass may never end.
    """
    assert section.general_passes is not None
    general = prepared.general_index
    rows = 0 if general is None else general.num_rows
    wanted = section.general_passes * rows
    stages = [(0, section.eta), *((stage.from_step, stage.eta) for stage in section.eta_stages)]
    if not rows or stages[-1][1] >= 1:
        raise ConfigError(
            f"agenttuning.general_passes: found {section.general_passes}, expected general data in "
            "the last stage: eta is 1 there"
        )
    drawn = 0.0
    for number, (start, eta) in enumerate(stages):
        examples = _examples_per_step(prepared, eta, batch, packed_length)
        each = examples * (1 - eta)
        end = stages[number + 1][0] if number + 1 < len(stages) else None
        if end is None or drawn + each * (end - start) >= wanted:
            # Against rounding: 0.8 * 64 in floating point is no whole number.
            return start + max(1, math.ceil(round((wanted - drawn) / each, 9)))
        drawn += each * (end - start)
    raise AssertionError("the last stage has no end")


def _examples_per_step(
    prepared: EncodedSources, eta: float, batch: int, packed_length: int | None
) -> float:
    if packed_length is None:
        return batch
    means = [
        0.0 if index is None else float(np.mean(index["tokens"].to_numpy()))
        for index in (prepared.agent_index, prepared.general_index)
    ]
    return batch * packed_length / (eta * means[0] + (1 - eta) * means[1])
