"""Comparison of short answers, by HotpotQA's rules."""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


def normalise(answer: str) -> str:
    """Normalise an answer: lower case, no punctuation, articles or extra blanks."""
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> bool:
    """Whether two answers are equal after normalisation."""
    return normalise(answer) == normalise(gold)


def token_f1(answer: str, gold: str) -> float:
    """Return the harmonic mean of precision and recall of the answer's words.

    Yes and no score 0 against any other answer. Two answers that are empty after normalisation are
    equal; HotpotQA's script gives 0 there.
    """
    found, expected = normalise(answer), normalise(gold)
    if found == expected:
        return 1.0
    if found in _CLOSED or expected in _CLOSED:
        return 0.0
    words, right = found.split(), expected.split()
    shared = sum((Counter(words) & Counter(right)).values())
    return 2.0 * shared / (len(words) + len(right)) if shared else 0.0
