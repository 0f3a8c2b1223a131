"""Score an answer: by a judge, or by a rule for closed answers."""

from __future__ import annotations

import re

from evaluators.tasks.held_out.hotpot_qa.answers import exact_match, normalise
from evaluators.tasks.held_out.rewoo.task_sets import Closed

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_NOT_PLAUSIBLE = re.compile(r"\b(?:not|isnt) plausible\b")
_CHOICES: dict[str, tuple[str, ...]] = {
    "yes_no": ("yes", "no"),
    "plausible": ("implausible", "plausible"),
}


def closed_match(answer: str, gold: str, closed: Closed) -> bool:
    """Whether an answer is right by rule.

    For multiple-choice words the first one named counts, "not plausible" being implausible; for
    numbers the last one; other answers must be equal after normalisation.

    Raises:
        ValueError: The answers of this set are not closed.
    """
    if closed in _CHOICES:
        return _choice(answer, _CHOICES[closed]) == gold.strip().lower()
    if closed == "number":
        numbers, right = _numbers(answer), _numbers(gold)
        return bool(numbers and right) and numbers[-1] == right[-1]
    if closed == "text":
        return exact_match(answer, gold)
    raise ValueError("only a judge can tell whether this answer is right")


def _choice(answer: str, choices: tuple[str, ...]) -> str:
    words = _NOT_PLAUSIBLE.sub("implausible", normalise(answer)).split()
    return next((word for word in words if word in choices), "")


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]
