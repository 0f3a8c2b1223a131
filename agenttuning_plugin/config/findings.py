"""Findings of `agenttuning check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dataset_builders.errors import AgentTuningError

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: What was checked.
        detail: What was found, in one line.
        level: Whether it is in order, may be wrong, or stops a run or makes it another one.
    """

    what: str
    detail: str
    level: Level = "ok"

    def as_json(self) -> dict[str, str]:
        """The finding for machines."""
        return {"level": self.level, "what": self.what, "detail": self.detail}


def errors_in(what: str, lines: Iterable[str]) -> list[Finding]:
    """Errors, one for each line."""
    return [Finding(what, line, "error") for line in lines]


def guarded(what: str, step: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Findings of a step; an `AgentTuningError` that ends it is the last one.

    Args:
        what: What the step checks.
        step: Makes the findings.
    """
    try:
        yield from step()
    except AgentTuningError as error:
        yield Finding(what, " ".join(str(error).split()), "error")
