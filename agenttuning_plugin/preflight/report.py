"""Report of `agenttuning check`: findings in groups, and the figures behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from agenttuning_plugin.config.findings import Finding, Level


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        recipe: The file that was checked.
        full: Whether all data was read.
        findings: Findings in the order in which they were made.
        facts: JSON-ready figures; docs/reference/files.md lists them.
    """

    recipe: str
    full: bool = False
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, group: str, findings: Iterable[Finding]) -> None:
        """Add findings one by one, so that a step sees those of the steps before it.

        Args:
            group: Group of those that name none.
            findings: The findings.
        """
        for finding in findings:
            self.findings.append(finding if finding.group else replace(finding, group=group))

    def of(self, level: Level) -> list[Finding]:
        """Return the findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.of("error")

    def as_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "recipe": self.recipe,
            "ok": self.ok,
            "full": self.full,
            "findings": [finding.as_json() for finding in self.findings],
            "facts": self.facts,
        }
