"""Convert eta from shares of tokens to shares of examples.

The paper's eta counts examples. Agent turns are short, so at eta 0.2 only some 4 % of the
trained tokens, and so of the loss signal, are agent data. If eta is a share of tokens or of trained
tokens, the rate of examples that gives it follows from the lengths of the rows: with mean lengths a
and g of agent and general rows, rate r gives the share r a / (r a + (1 - r) g).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import QuotaStage, check_eta
from dataset_builders.mixing.order import MixOrder
from dataset_builders.mixing.permutation import Index

Unit = Literal["example", "token", "trained_token"]
"""Units in which eta can be given."""
UNITS: tuple[str, ...] = get_args(Unit)

_CLOSE = 1e-4  # relative error at which the iteration stops
_ROUNDS = 12


def solve_example_rates(
    wanted: tuple[QuotaStage, ...],
    make: Callable[[tuple[QuotaStage, ...]], MixOrder],
    counts: Index,
) -> tuple[QuotaStage, ...]:
    """Solve for the shares of examples that give the wanted shares of tokens.

    Solved on the rows that the order draws, stage by stage, not on means over the sources:
    over 10,000 examples the two differ by about a percent.

    Args:
        wanted: Stages of eta, in tokens.
        make: Makes the order of given stages in examples.
        counts: (A + G,) tokens, or trained tokens, of each row, agent rows first.

    Returns:
        Stages of eta in examples.

    Raises:
        ConfigError: A wanted share is outside of [0, 1], or all rows of a side count 0.
    """
    check_eta(wanted)
    found: tuple[QuotaStage, ...] = ()
    for number, stage in enumerate(wanted):
        length = make((*found, stage)).num_examples
        if stage.share in (0.0, 1.0) or stage.start >= length:
            found = (*found, stage)  # nothing to solve, or never reached
            continue
        end = wanted[number + 1].start if number + 1 < len(wanted) else length
        found = (*found, _solve(stage, end, found, make, counts))
    return found


def _solve(
    stage: QuotaStage,
    end: int,
    before: tuple[QuotaStage, ...],
    make: Callable[[tuple[QuotaStage, ...]], MixOrder],
    counts: Index,
) -> QuotaStage:
    rate, best, best_error = stage.share, stage.share, np.inf
    for _ in range(_ROUNDS):
        order = make((*before, QuotaStage(stage.start, rate)))
        drawn = order.slice(stage.start, min(end, order.num_examples))
        agent = drawn < order.num_agent
        means = [
            _mean(counts, drawn[agent], slice(0, order.num_agent), "agent"),
            _mean(counts, drawn[~agent], slice(order.num_agent, None), "general"),
        ]
        share = counts[drawn[agent]].sum() / max(1, counts[drawn].sum())
        error = abs(float(share) / stage.share - 1)
        if error < best_error:
            best, best_error = rate, error
        if error < _CLOSE:
            break
        there, others = stage.share * means[1], (1 - stage.share) * means[0]
        rate = there / (there + others)
    return QuotaStage(stage.start, best)


def _mean(counts: Index, drawn: Index, all_rows: slice, what: str) -> float:
    values = counts[drawn] if len(drawn) else counts[all_rows]
    mean = float(values.mean()) if len(values) else 0.0
    if mean <= 0:
        raise ConfigError(f"eta: {what} rows have no token of the unit that eta counts")
    return mean
