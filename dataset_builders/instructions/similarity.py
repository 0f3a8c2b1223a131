"""ROUGE-L similarity of instructions, to reject near duplicates.

Self-Instruct (Wang et al. 2023, section 2.2) keeps an instruction only if its ROUGE-L with
every earlier one stays below 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dataset_builders.extras import needs_extra

TOO_SIMILAR = 0.7
"""ROUGE-L threshold of a near duplicate."""

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words that are compared: runs of letters, digits and underscores, lower-cased.

    The reference implementation supports only ASCII letters; for English both agree, except for the
    underscore.
    """
    return [word.casefold() for word in _WORD.findall(text)]


class InstructionPool:
    """Instructions that new ones must differ from.

    Args:
        texts: The first ones.
        threshold: ROUGE-L from which two count as similar, in (0, 1].

    Raises:
        MissingExtraError: rapidfuzz, which compares them, is not installed.
    """

    def __init__(self, texts: Iterable[str] = (), threshold: float = TOO_SIMILAR) -> None:
        with needs_extra("collect"):
            from rapidfuzz.distance import LCSseq
        self._common = LCSseq.similarity
        self._threshold = threshold
        self._texts: list[str] = []
        self._words: list[list[str]] = []
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Add an instruction."""
        self._texts.append(text)
        self._words.append(words(text))

    def nearest(self, text: str) -> tuple[float, str]:
        """Return ROUGE-L and text of the most similar instruction above the threshold.

        ROUGE-L is the F-measure of the longest common subsequence of two texts' words.

        Returns:
            (0.0, "") if none reaches the threshold.
        """
        sequence = words(text)
        best, nearest = 0.0, ""
        for other, known in zip(self._words, self._texts, strict=True):
            total = len(sequence) + len(other)
            bound = 2 * min(len(sequence), len(other))
            # Most texts differ so much in length that they need not be compared.
            if not bound or bound < max(best, self._threshold) * total:
                continue
            score = 2 * self._common(sequence, other) / total
            if score >= self._threshold and score > best:
                best, nearest = score, known
        return best, nearest
