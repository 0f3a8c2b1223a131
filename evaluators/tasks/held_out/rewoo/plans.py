"""Parse a plan: steps with a tool, its input, and the evidence they produce."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_STEP = re.compile(r"^\s*(?:Plan\s*\d*:(?P<why>.*?))?(?P<name>#E\d+)\s*=\s*(?P<call>.*)$")
_WHY = re.compile(r"^\s*Plan\s*\d*:(.*)$")
# The token limit may have cut off the last bracket.
_CALL = re.compile(r"(\w+)\s*\[(.*?)\]?\s*\.?\s*$")
_NAME = re.compile(r"#E\d+")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a plan.

    Attributes:
        name: Name of its evidence, such as "#E1".
        why: Its reason.
        tool: Name of the tool; "" if the step is not a call, and is its own evidence.
        asked: Input of the tool, with names of earlier evidence in it.
    """

    name: str
    why: str
    tool: str
    asked: str

    def filled(self, evidence: Mapping[str, str]) -> str:
        """Return the tool's input, with evidence in place of its names."""
        return _NAME.sub(
            lambda name: f"[{evidence[name[0]]}]" if name[0] in evidence else name[0], self.asked
        )


def read_plan(text: str) -> tuple[Step, ...] | None:
    """Parse the steps of a planner's answer, in order.

    A step is a line `#E1 = Tool[input]`, after a line `Plan: ...` or on it. Other lines are
    ignored. Of a repeated name the first counts.

    Returns:
        The steps; () if the text has no plan, and None if a reason lacks its step, at which the
        published script fails.
    """
    steps: dict[str, Step] = {}
    why, open_reason = "", False
    for line in text.splitlines():
        if found := _STEP.match(line):
            call = _CALL.match(found["call"].strip())
            tool, asked = call.groups() if call else ("", found["call"].strip())
            reason = (found["why"] or why).strip()
            steps.setdefault(found["name"], Step(found["name"], reason, tool, asked))
            why, open_reason = "", False
        elif reason_line := _WHY.match(line):
            if open_reason:
                return None
            why, open_reason = reason_line[1], True
    return None if open_reason else tuple(steps.values())
