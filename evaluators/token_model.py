"""A Hugging Face model at the level of tokens: ids in, ids or log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.subject import Decoding

_MAX_BATCH_TOKENS = 2048
"""Padded tokens of a forward pass: bounds the logits' memory (tokens times vocabulary)."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model says about the tokens of a row, read in one forward pass.

    Attributes:
        logprobs: (T - 1,) float32, log-probability in nats of every token but the first.
        likeliest: (T - 1,) int32, the token that greedy decoding would take in its place.
    """

    logprobs: npt.NDArray[np.float32]
    likeliest: npt.NDArray[np.int32]


class TokenModel:
    """Generation and scoring; call it within `model_state.borrowed`.

    Args:
        model: The bare model.
        pad_id: Token to fill batches with; it is masked.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, end_ids: Sequence[int]
    ) -> list[list[int]]:
        """Continue prompts until one of the end tokens, which is not returned."""
        from transformers import GenerationConfig

        batch, mask, width = self._padded(prompts, left=True)
        # Said explicitly: Axolotl sets do_sample on the model's own generation config, and
        # training switches config.use_cache off.
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=list(end_ids),
            pad_token_id=self._pad_id,
            use_cache=True,
        )
        out: Any = self._model.generate(
            input_ids=batch, attention_mask=mask, generation_config=settings
        )
        return [_until(row, end_ids) for row in out[:, width:].tolist()]

    def next_logprobs(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]
    ) -> list[list[float]]:
        """Log-probability in nats of each candidate after each prompt."""
        import torch

        found: list[list[float]] = [[] for _ in prompts]
        for rows in _batches(prompts):
            batch, mask, _ = self._padded([prompts[row] for row in rows], left=True)
            logits = self._model(
                input_ids=batch,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=1,
            ).logits[:, -1]
            values = torch.log_softmax(logits.float(), dim=-1)[:, list(candidates)].tolist()
            for row, value in zip(rows, values, strict=True):
                found[row] = value
        return found

    def score(self, rows: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Read whole rows of at least two tokens and tell how likely each token was."""
        import torch

        found: list[TokenScores | None] = [None] * len(rows)
        for chosen in _batches(rows):
            batch, mask, _ = self._padded([rows[row] for row in chosen], left=False)
            logits = self._model(input_ids=batch, attention_mask=mask, use_cache=False).logits[
                :, :-1
            ]
            targets = batch[:, 1:].to(logits.device)
            values = -torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), targets, reduction="none"
            )
            likeliest = logits.argmax(dim=-1).int()
            for number, row in enumerate(chosen):
                length = len(rows[row]) - 1
                found[row] = TokenScores(
                    values[number, :length].cpu().numpy(),
                    likeliest[number, :length].cpu().numpy(),
                )
        return [scores for scores in found if scores is not None]

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Any, Any, int]:
        import torch

        width = max(map(len, rows))
        # By hand: the tokenizer's own padding side stays untouched.
        batch = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            batch[number, place] = torch.tensor(row, dtype=torch.long)
            mask[number, place] = 1
        device = self._model.device
        return batch.to(device), mask.to(device), width


def _until(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    ends = [ids.index(end) for end in end_ids if end in ids]
    return ids[: min(ends, default=len(ids))]


def _batches(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of rows, those of a like length together."""
    batches: list[list[int]] = []
    for row in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        width = len(rows[row])  # shortest first, so the newcomer sets the padded width
        if batches and (len(batches[-1]) + 1) * width <= _MAX_BATCH_TOKENS:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
