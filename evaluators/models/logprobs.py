"""Log-probabilities of a row's tokens under a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log-probabilities and greedy tokens of a row, from one forward pass.

    Attributes:
        logprobs: (T - 1,) float32, log-probability in nats of every token but the first.
        likeliest: (T - 1,) int32, the greedy token at its position.
    """

    logprobs: npt.NDArray[np.float32]
    likeliest: npt.NDArray[np.int32]


def token_scores(output: Any, batch: Any, lengths: Sequence[int]) -> list[TokenScores]:
    """Compute the scores of a batch's rows from a forward pass.

    Args:
        output: The model's, with logits (B, T, V).
        batch: (B, T) token ids, padded on the right.
        lengths: Tokens of each row.
    """
    # From the end: virtual tokens (prompt tuning) have logits too, in front of the row's.
    logits = output.logits[:, -batch.shape[1] : -1]
    targets = batch[:, 1:].to(logits.device)
    values = logits.float()
    # Not cross_entropy over a transposed vocabulary: on a CPU that is several times slower,
    # and off by 1e-4 at 49,152 tokens where this is by 2e-6.
    values = values.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - values.logsumexp(-1)
    likeliest = logits.argmax(dim=-1).int()
    return [
        TokenScores(
            values[number, : length - 1].cpu().numpy(),
            likeliest[number, : length - 1].cpu().numpy(),
        )
        for number, length in enumerate(lengths)
    ]


def divergence_sums(output: Any, reference: Any, counted: Sequence[Sequence[bool]]) -> list[float]:
    """Return the sum of KL(reference || model) over the counted positions of each row, in nats.

    Args:
        output: The model's, with logits (B, T, V).
        reference: The reference model's, likewise.
        counted: (T - 1,) of each row: whether the prediction of the token after it counts.
    """
    import torch

    sums: list[float] = []
    for number, positions in enumerate(counted):
        # From the end, see `token_scores`; rows are padded on the right, to the longest.
        width = reference.logits.shape[1]
        mine = output.logits[number, -width:][: len(positions)]
        chosen = torch.tensor(positions, device=mine.device)
        model = torch.log_softmax(mine[chosen].float(), dim=-1)
        base = torch.log_softmax(
            reference.logits[number, : len(positions)].to(mine.device)[chosen].float(), dim=-1
        )
        sums.append(float((base.exp() * (base - model)).sum(dtype=torch.float64)))
    return sums
