"""AgentBench's parser and metric for Mind2Web turns."""

from __future__ import annotations

import re

LETTERS = "BCDEFGHIJK"
"""Letters of the choices; A means none of them."""

NONE = "A"

_ANSWER = re.compile(r"Answer: ([A-F])")
_OPERATION = re.compile(r"Action: (CLICK|SELECT|TYPE)")
_VALUE = re.compile(r"Value: (.*)$", re.MULTILINE)


def parse_choice(turn: str) -> str:
    """Return the letter that a turn answers with, from A to F; "" if none."""
    found = _ANSWER.search(turn)
    return found[1] if found else ""


def parse_operation(turn: str) -> str:
    """Return operation and value of a turn, joined by a blank; either may be empty."""
    operation, value = _OPERATION.search(turn), _VALUE.search(turn)
    return f"{operation[1] if operation else ''} {value[1].strip() if value else ''}"


def reference_operation(op: str, value: str) -> str:
    """Return operation and value of an annotation, by the same rule; a click has no value."""
    return parse_operation(f"Action: {op}\n" + (f"Value: {value}" if op != "CLICK" else ""))


def operation_f1(predicted: str, reference: str) -> float:
    """Return the F1 over the sets of words of two operations, in [0, 1]."""
    found, expected = set(predicted.split()), set(reference.split())
    if not found and not expected:
        return 1.0
    hits = len(found & expected)
    return 2 * hits / (len(found) + len(expected))
