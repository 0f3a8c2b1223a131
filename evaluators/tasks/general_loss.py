"""Loss on held-out general chat, which measures forgetting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget, Evaluator, Record, Suite
from evaluators.models.model_info import num_positions
from evaluators.tasks.held_out_rows import ConversationRows, EncodedRows, HeldOutRows, Pair

if TYPE_CHECKING:
    from datasets import Dataset


class GeneralLossEvaluator(Evaluator):
    """Mean cross-entropy per trained token, in nats, over held-out conversations.

    Figure: `loss`. Conversations are the independent items of its standard error.

    Args:
        rows: Held-out rows with `input_ids` and `labels`, each (T,), as `encode_dataset`
            makes them, or conversations that the model's tokenizer encodes.
        name: Prefix of the figure in logs.

    Raises:
        ConfigError: There are no rows.
    """

    suite: Suite = "general"
    primary = "loss"
    needs_weights: ClassVar[bool] = True
    generates: ClassVar[bool] = False

    def __init__(
        self,
        rows: Dataset | Sequence[Mapping[str, Any]] | ConversationRows,
        name: str = "general",
    ) -> None:
        self._rows: HeldOutRows = rows if isinstance(rows, ConversationRows) else EncodedRows(rows)
        if not self._rows.items():
            raise ConfigError(f"{name}: there is no held-out conversation to measure the loss on")
        self.name = name

    def items(self) -> tuple[str, ...]:
        """Return the names of the conversations."""
        return self._rows.items()

    def about(self) -> dict[str, str]:
        """Return number and digest of the conversations."""
        return {"data": self._rows.about()}

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure the loss; see `Evaluator.measure`."""
        fitting = self._fitting(subject, items, finished)
        rows = [pair for pairs in fitting.values() for pair in pairs]
        sums = self._sums(subject, rows)
        for item, pairs in fitting.items():
            count = sum(int(_trained(labels).sum()) for _, labels in pairs)
            total = sum(next(sums) for _ in pairs)
            if not count:
                finished({"item": item, "scores": {}, "error": "has no trained token"})
                continue
            scores = {self.primary: total / count}
            finished({"item": item, "scores": scores, "weight": count, "error": ""})

    def _sums(self, subject: EvalTarget, rows: Sequence[Pair]) -> Iterator[float]:
        """Yield the sum of the figure over the trained tokens of each row, in nats."""
        scores = subject.tokens().score([ids for ids, _ in rows])
        for (_, labels), score in zip(rows, scores, strict=True):
            yield -float(score.logprobs[_trained(labels)].sum(dtype=np.float64))

    def _fitting(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> dict[str, list[Pair]]:
        """Return the rows of the items that the model has positions for; report the others."""
        room = num_positions(subject.model)
        fitting: dict[str, list[Pair]] = {}
        for item, pairs in self._rows.rows(subject, items).items():
            if isinstance(pairs, str):
                finished({"item": item, "scores": {}, "error": pairs})
                continue
            length = max(len(ids) for ids, _ in pairs)
            if room is None or length <= room:
                fitting[item] = pairs
            else:
                error = f"has {length} tokens, the model has positions for {room}"
                finished({"item": item, "scores": {}, "error": error})
        return fitting


def _trained(labels: Sequence[int]) -> Any:
    return np.asarray(labels[1:]) != IGNORE_INDEX
