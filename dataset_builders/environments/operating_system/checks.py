"""AgentBench's checks that compare an answer with the reference's output, reimplemented.

In AgentBench each is a script of a few lines that gets the answer and the outputs of the
scripts before it, and passes by exit status 0. They depend only on text, so they run here and not
in the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable

_KIBI = 1024
_UNITS: dict[str, int] = {
    "B": 1,
    "Byte": 1,
    **{
        unit + ending: _KIBI**power
        for power, unit in enumerate("KMGTP", start=1)
        for ending in ("", "B")
    },
}


def _text(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n").strip()


def _size(value: str) -> int:
    # The first matching unit counts, and B is the first: "4KB" is not a size, as in AgentBench.
    value = value.strip()
    for unit, factor in _UNITS.items():
        if value.endswith(unit):
            return int(value.removesuffix(unit)) * factor
    return int(value)


def _integers_equal(answer: str, expected: str) -> bool:
    return int(answer) == int(expected)


def _texts_equal(answer: str, expected: str) -> bool:
    return _text(answer) == _text(expected)


def _sizes_equal(answer: str, expected: str) -> bool:
    # Extends AgentBench's rule, under which `du -h`'s "4.0K" never passes: equal text passes.
    return _texts_equal(answer, expected) or _size(answer) == _size(expected)


def _answer_contains(answer: str, expected: str) -> bool:
    return _text(expected) in _text(answer)


def _answer_within(answer: str, expected: str) -> bool:
    return _text(answer) in _text(expected)


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "containing": _answer_contains,
    "in": _answer_within,
    "integer-match": _integers_equal,
    "size-match": _sizes_equal,
    "string-match": _texts_equal,
}
"""Checks by the name of AgentBench's script; arguments: answer and reference output."""


def passes(name: str, answer: str, expected: str) -> bool:
    """Whether an answer passes a check; text that it cannot parse fails, as in AgentBench.

    Args:
        name: A key of `CHECKS`.
        answer: The agent's answer.
        expected: The reference's output.
    """
    try:
        return CHECKS[name](answer, expected)
    except ValueError:
        return False
