"""Loss on general chat that training does not see: what was forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.errors import ConfigError
from evaluators.base import Evaluation, Subject
from evaluators.model_state import borrowed
from evaluators.statistics import ratio

if TYPE_CHECKING:
    from datasets import Dataset

_MAX_BATCH_TOKENS = 2048
"""Padded tokens of a forward pass: bounds the logits' memory (tokens times vocabulary)."""


class GeneralLossEvaluator:
    """Mean cross-entropy per trained token, in nats, over held-out conversations.

    Figure: `loss`. Conversations are the independent items of its standard error.

    Args:
        rows: Held-out rows with `input_ids` and `labels`, each (T,), as `encode_dataset`
            makes them.
        name: Prefix of the figure in logs.

    Raises:
        ConfigError: There is no row.
    """

    def __init__(self, rows: Dataset | Sequence[Mapping[str, Any]], name: str = "general") -> None:
        if not len(rows):
            raise ConfigError(f"{name}: there is no held-out conversation to measure the loss on")
        self.name = name
        self._rows = [(list(row["input_ids"]), list(row["labels"])) for row in rows]

    def evaluate(
        self, subject: Subject, on_progress: Callable[[int, int], None] | None = None
    ) -> Evaluation:
        """Measure the loss; see `Evaluator.evaluate`."""
        started = time.monotonic()
        mine = list(range(subject.rank, len(self._rows), subject.world_size))
        mine.sort(key=lambda index: len(self._rows[index][0]))
        sums: list[tuple[int, float, int]] = []
        with borrowed(subject):
            for batch in self._batches(mine):
                sums.extend(self._losses(subject, batch))
                if on_progress is not None:
                    on_progress(len(sums), len(mine))
        joined = sorted(subject.gather(sums))
        losses = [loss for _, loss, _ in joined]
        counts = [float(count) for _, _, count in joined]
        return Evaluation(
            evaluator=self.name,
            metrics={"loss": ratio(losses, counts)},
            num_errors=0,
            seconds=time.monotonic() - started,
            records=tuple(
                {"item": index, "loss_sum": loss, "tokens": count} for index, loss, count in joined
            ),
        )

    def _batches(self, indices: list[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        for index in indices:  # shortest first, so the newcomer sets the padded width
            width = len(self._rows[index][0])
            if batches and (len(batches[-1]) + 1) * width <= _MAX_BATCH_TOKENS:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    def _losses(self, subject: Subject, batch: list[int]) -> list[tuple[int, float, int]]:
        import torch
        from torch.nn.functional import cross_entropy

        width = max(len(self._rows[index][0]) for index in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        labels = torch.full((len(batch), width), IGNORE_INDEX, dtype=torch.long)
        for number, index in enumerate(batch):
            row, row_labels = self._rows[index]
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
            labels[number, : len(row)] = torch.tensor(row_labels)
        device = subject.device
        logits = subject.model(
            input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
        ).logits
        targets = labels[:, 1:].to(logits.device)
        sums = cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            targets,
            ignore_index=IGNORE_INDEX,
            reduction="none",
        ).sum(dim=1)
        counts = (targets != IGNORE_INDEX).sum(dim=1)
        return list(zip(batch, sums.tolist(), counts.tolist(), strict=True))
