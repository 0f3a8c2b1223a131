"""Loss on held-out general chat, which measures forgetting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget, Evaluator, Record, Suite
from evaluators.models.model_info import num_positions

if TYPE_CHECKING:
    from datasets import Dataset


class GeneralLossEvaluator(Evaluator):
    """Mean cross-entropy per trained token, in nats, over held-out conversations.

    Figure: `loss`. Conversations are the independent items of its standard error.

    Args:
        rows: Held-out rows with `input_ids` and `labels`, each (T,), as `encode_dataset`
            makes them.
        name: Prefix of the figure in logs.

    Raises:
        ConfigError: There are no rows.
    """

    suite: Suite = "general"
    primary = "loss"
    needs_weights: ClassVar[bool] = True
    generates: ClassVar[bool] = False

    def __init__(self, rows: Dataset | Sequence[Mapping[str, Any]], name: str = "general") -> None:
        if not len(rows):
            raise ConfigError(f"{name}: there is no held-out conversation to measure the loss on")
        self.name = name
        self._rows = [(list(row["input_ids"]), list(row["labels"])) for row in rows]

    def items(self) -> tuple[str, ...]:
        """Return the numbers of the conversations."""
        return tuple(str(number) for number in range(len(self._rows)))

    def about(self) -> dict[str, str]:
        """Return number and digest of the conversations."""
        digest = blake2b(repr(self._rows).encode(), digest_size=4).hexdigest()
        return {"data": f"{len(self._rows)} conversations, {digest}"}

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure the loss; see `Evaluator.measure`."""
        room = num_positions(subject.model)
        fitting: list[str] = []
        for item in items:
            length = len(self._rows[int(item)][0])
            if room is None or length <= room:
                fitting.append(item)
            else:
                error = f"has {length} tokens, the model has positions for {room}"
                finished({"item": item, "scores": {}, "error": error})
        scores = subject.tokens().score([self._rows[int(item)][0] for item in fitting])
        for item, score in zip(fitting, scores, strict=True):
            trained = np.asarray(self._rows[int(item)][1][1:]) != IGNORE_INDEX
            count = int(trained.sum())
            if not count:
                finished({"item": item, "scores": {}, "error": "has no trained token"})
                continue
            loss = -float(score.logprobs[trained].sum(dtype=np.float64)) / count
            finished({"item": item, "scores": {"loss": loss}, "weight": count, "error": ""})
