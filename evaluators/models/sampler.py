"""Select the next token: greedily or by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from evaluators.models.interface import Decoding


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
        ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        mass = ordered.cumsum(dim=-1)
        # The likeliest tokens that together reach top_p; always at least one.
        kept = mass - ordered < self._decoding.top_p
        kept[:, 0] = True
        total = mass.masked_fill(~kept, 0.0).amax(dim=-1)
        drawn = [self._draws[row].random() for row in rows]
        goal = torch.tensor(drawn, dtype=mass.dtype, device=mass.device) * total
        place = torch.searchsorted(mass, goal[:, None], right=True)[:, 0]
        place = place.clamp(max=kept.sum(dim=-1) - 1)
        chosen: list[int] = tokens.gather(1, place[:, None])[:, 0].tolist()
        return chosen


def _generator(seed: int, prompt: Sequence[int]) -> np.random.Generator:
    digest = blake2b(np.asarray(prompt, dtype="<i8").tobytes(), digest_size=8).digest()
    return np.random.default_rng([seed % 2**63, int.from_bytes(digest, "little")])
