"""Select the next token: greedily or by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from evaluators.models.interface import Decoding

_LIKELIEST = 1024
"""Tokens that are sorted first: sorting a vocabulary of 49,152 takes longer than a small model."""


class TokenChooser:
    """Selects a token for each row.

    Each row has its own generator, seeded by the decoding's seed and its prompt: the same prompt
    gives the same answer, whatever else is in the batch.

    Args:
        decoding: Decoding settings; temperature 0 is greedy.
        prompts: Token ids of all rows.
    """

    def __init__(self, decoding: Decoding, prompts: Sequence[Sequence[int]]) -> None:
        self._decoding = decoding
        greedy = decoding.temperature <= 0
        self._draws = [] if greedy else [_generator(decoding.seed, row) for row in prompts]

    def choose(self, logits: Any, rows: Sequence[int]) -> list[int]:
        """Return the next tokens.

        Args:
            logits: (B, V), of rows in play.
            rows: (B,) their numbers among the prompts.
        """
        import torch

        if not self._draws:
            greedy: list[int] = logits.argmax(dim=-1).tolist()
            return greedy
        probabilities = torch.softmax(logits.double() / self._decoding.temperature, dim=-1)
        drawn = torch.tensor(
            [self._draws[row].random() for row in rows],
            dtype=torch.float64,
            device=probabilities.device,
        )
        top_p = self._decoding.top_p
        chosen = _among_likeliest(probabilities, drawn, top_p)
        missing = (chosen < 0).nonzero()[:, 0]
        if len(missing):
            chosen[missing] = _among_all(probabilities[missing], drawn[missing], top_p)
        found: list[int] = chosen.tolist()
        return found


def _among_likeliest(probabilities: Any, drawn: Any, top_p: float) -> Any:
    """Return what `_among_all` does, (B,), or -1 where the likeliest tokens do not decide it.

    Args:
        probabilities: (B, V), float64.
        drawn: (B,), in [0, 1).
        top_p: Nucleus sampling threshold.
    """
    import torch

    if probabilities.shape[1] <= _LIKELIEST:
        return torch.full_like(drawn, -1, dtype=torch.long)
    tokens = probabilities.topk(_LIKELIEST, dim=-1, sorted=False).indices.sort(dim=-1).values
    ordered, places = probabilities.gather(1, tokens).sort(dim=-1, descending=True, stable=True)
    mass = ordered.cumsum(dim=-1)
    kept = _nucleus(ordered, mass, top_p)
    if top_p < 1:
        total = mass.masked_fill(~kept, 0.0).amax(dim=-1)
        ends = ~kept[:, -1]  # The nucleus lies within them.
    else:
        total, ends = probabilities.sum(dim=-1), torch.ones_like(drawn, dtype=torch.bool)
    place = torch.searchsorted(mass, (drawn * total)[:, None], right=True)[:, 0]
    if top_p < 1:
        place = place.clamp(max=kept.sum(dim=-1) - 1)
    # Which of the tokens with the last probability are among them is not known.
    sure = (ordered > ordered[:, -1:]).sum(dim=-1)
    known = ends & (place < sure)
    chosen = tokens.gather(1, places.gather(1, place.clamp(max=_LIKELIEST - 1)[:, None]))[:, 0]
    return torch.where(known, chosen, -1)


def _among_all(probabilities: Any, drawn: Any, top_p: float) -> Any:
    """Return the token at which the sorted probabilities reach a share of the nucleus, (B,)."""
    import torch

    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    mass = ordered.cumsum(dim=-1)
    kept = _nucleus(ordered, mass, top_p)
    total = mass.masked_fill(~kept, 0.0).amax(dim=-1)
    place = torch.searchsorted(mass, (drawn * total)[:, None], right=True)[:, 0]
    place = place.clamp(max=kept.sum(dim=-1) - 1)
    return tokens.gather(1, place[:, None])[:, 0]


def _nucleus(ordered: Any, mass: Any, top_p: float) -> Any:
    """Mark the likeliest tokens that together reach top_p; always at least one."""
    kept = mass - ordered < top_p
    kept[:, 0] = True
    return kept


def _generator(seed: int, prompt: Sequence[int]) -> np.random.Generator:
    digest = blake2b(np.asarray(prompt, dtype="<i8").tobytes(), digest_size=8).digest()
    return np.random.default_rng([seed % 2**63, int.from_bytes(digest, "little")])
