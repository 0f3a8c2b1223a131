"""Exclude tasks that are similar to evaluation tasks from training data."""

from __future__ import annotations

from collections.abc import Iterable

from dataset_builders.contamination.check import contamination
from dataset_builders.contamination.plain_texts import Text
from dataset_builders.contamination.report import CLEAN
from dataset_builders.instructions.similarity import TOO_SIMILAR, InstructionPool

SIMILAR = "similar_to_evaluation"
SHARED = "shares_text_with_evaluation"


class EvaluationGuard:
    """Instructions of evaluation tasks, which training tasks must not resemble.

    Args:
        instructions: Those of the evaluation's tasks; if empty, the guard accepts everything.
        threshold: ROUGE-L from which two instructions count as similar.
    """

    def __init__(self, instructions: Iterable[str], threshold: float = TOO_SIMILAR) -> None:
        texts = list(dict.fromkeys(instructions))
        self._pool = InstructionPool(texts, threshold)
        self._samples = [Text(str(index), text) for index, text in enumerate(texts)]

    def __len__(self) -> int:
        return len(self._samples)

    def reason(self, instruction: str) -> str:
        """Return why an instruction must not be trained on, or "".

        Returns:
            `SIMILAR`: its ROUGE-L with one of the evaluation's reaches the threshold.
            `SHARED`: by Llama 2's rule (spans of more than 10 words, 4 of which may
            differ) it contains so much of one that this one would not be clean.
        """
        if not self._samples:
            return ""
        if self._pool.nearest(instruction)[1]:
            return SIMILAR
        found = contamination([Text("", instruction)], self._samples)
        return SHARED if any(sample.share >= CLEAN for sample in found.samples) else ""
