"""Findings of `agenttuning check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from dataset_builders.errors import AgentTuningError

Level = Literal["ok", "warning", "error"]

GROUPS = ("recipe", "data", "mix", "training", "device", "evaluators")
"""Parts of the report, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check.

    Attributes:
        what: What was checked.
        detail: What was found, in one line.
        level: Whether it is correct, possibly wrong, or prevents or changes the run.
        group: Part of the report that it belongs to, one of `GROUPS`.
    """

    what: str
    detail: str
    level: Level = "ok"
    group: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as JSON-ready values."""
        return {
            "group": self.group,
            "level": self.level,
            "what": self.what,
            "detail": self.detail,
        }


def in_group(group: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings as part of one group of the report."""
    for finding in findings:
        yield replace(finding, group=group)


def errors_in(what: str, lines: Iterable[str]) -> list[Finding]:
    """Return the errors, one per line."""
    return [Finding(what, line, "error") for line in lines]


def guarded(what: str, step: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Collect the findings of a step; an `AgentTuningError` that ends it becomes the last one.

    Args:
        what: What the step checks.
        step: Yields the findings.
    """
    try:
        yield from step()
    except AgentTuningError as error:
        yield Finding(what, " ".join(str(error).split()), "error")
