"""Divergence from the model before training on general chat, which measures forgetting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset_builders.encoding.tokens import IGNORE_INDEX
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget, Record
from evaluators.models.reference_model import reference_forward
from evaluators.tasks.general_loss import GeneralLossEvaluator
from evaluators.tasks.held_out_rows import ConversationRows, Pair

if TYPE_CHECKING:
    from datasets import Dataset


class GeneralKLEvaluator(GeneralLossEvaluator):
    """KL divergence of the model from the reference model, in nats per trained token.

    Figure: `kl`, the mean over trained tokens of KL(reference || model), the divergence of the
    distributions of the next token over the whole vocabulary, given the recorded text. 0 for the
    model before training. Unlike the loss it does not fall when training adapts to the style of
    the chat. Conversations are the independent items of its standard error. On-policy continual
    learning reports the same quantity (arXiv 2601.19897).

    Args:
        rows: As for `GeneralLossEvaluator`.
        name: Prefix of the figure in logs.
        reference: Folder or hub id of the reference; default: the base of a PEFT model.

    Raises:
        ConfigError: There are no rows.
    """

    primary = "kl"

    def __init__(
        self,
        rows: Dataset | Sequence[Mapping[str, Any]] | ConversationRows,
        name: str = "general_kl",
        reference: str | None = None,
    ) -> None:
        super().__init__(rows, name)
        self._reference = reference

    def about(self) -> dict[str, str]:
        """Return number and digest of the conversations, and the reference."""
        return {**super().about(), "reference": self._reference or "the adapter's base"}

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        """Measure the divergence; see `Evaluator.measure`.

        Raises:
            ConfigError: There is no reference, or the model's weights are sharded.
        """
        if subject.in_step is not None:
            raise ConfigError(
                f"{self.name}: found a model sharded over processes, expected whole weights: the "
                "reference would have to be gathered beside it; use general_loss"
            )
        super().measure(subject, items, finished)

    def _sums(self, subject: EvalTarget, rows: Sequence[Pair]) -> Iterator[float]:
        trained = [[label != IGNORE_INDEX for label in labels[1:]] for _, labels in rows]
        with reference_forward(subject.model, self._reference) as forward:
            yield from subject.tokens().divergence([ids for ids, _ in rows], trained, forward)
