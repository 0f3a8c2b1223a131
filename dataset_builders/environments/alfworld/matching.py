"""Map a model's turn to a command of the game, by AgentBench's rule.

The similarity is NLTK's `sentence_bleu` with its smoothing method 4 (Chen and Cherry,
2014), whole words and up to four of them in a row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

ORDERS = 4
SMOOTHING = 5.0
"""K of the smoothing method."""

LIKENESS = 0.01
"""Minimum similarity of a matching command."""

_ACTION = re.compile(r"ACTION:(.*)")
_ARRIVAL = "You arrive at loc "


def spoken_action(turn: str) -> str:
    """Return a turn's command: its first `ACTION:` line, or its first line if it has none."""
    found = _ACTION.search(turn)
    text = found.group(1) if found else turn
    return text.strip().lower().split("\n")[0]


def has_action(turn: str) -> bool:
    """Whether a turn contains `ACTION:`."""
    return _ACTION.search(turn) is not None


def nearest_action(text: str, admissible: Sequence[str]) -> str:
    """Return the admissible command most similar to a text, or the text if none is similar.

    Args:
        text: Result of `spoken_action`.
        admissible: Commands that the game accepts now; of equally similar ones the first wins.
    """
    if not admissible or text in admissible:
        return text
    words = text.split()
    scores = [bleu(command.split(), words) for command in admissible]
    best = max(range(len(scores)), key=scores.__getitem__)
    return admissible[best] if scores[best] > LIKENESS else text


def bleu(reference: Sequence[str], candidate: Sequence[str]) -> float:
    """Sentence BLEU with uniform weights and smoothing method 4; in [0, 1]."""
    matches = [_matches(reference, candidate, order) for order in range(1, ORDERS + 1)]
    if not matches[0]:
        return 0.0
    length, zeros, logarithms = len(candidate), 0, []
    for order, hits in enumerate(matches, start=1):
        precision = float(hits)
        if not hits and length > 1:
            zeros += 1
            precision = math.log(length) / (2**zeros * SMOOTHING)
        precision /= max(1, length - order + 1)
        if precision > 0:
            logarithms.append(math.log(precision) / ORDERS)
    brevity = min(0.0, 1 - len(reference) / length)
    return math.exp(brevity) * math.exp(math.fsum(logarithms))


def shown_observation(feedback: str) -> str:
    """Return the game's answer without the current location, which is a bare number."""
    if feedback.startswith(_ARRIVAL):
        return feedback[feedback.find(". ") + 2 :]
    return feedback


def _matches(reference: Sequence[str], candidate: Sequence[str], order: int) -> int:
    return (_runs(reference, order) & _runs(candidate, order)).total()


def _runs(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
