"""Output and option names of `agenttuning collect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from agenttuning_plugin.console import console, errors, plain

OPTIONS: Mapping[str, str] = {
    "num_tasks or tasks": "--num-tasks or --tasks",
    "environment options": "--option",
    "finish": "--add-thoughts",
    "limit on steps": "--episode-steps",
    "limit on tokens": "--episode-tokens",
    "limit on cost": "--episode-cost",
    "limit on seconds": "--episode-time",
    "sampling's temperature": "--temperature",
    "sampling's top_p": "--top-p",
    "sampling's seed": "--sampling-seed",
    "sampling's max_tokens": "--max-new-tokens",
    "sampling's stop": "--stop",
    "sampling's token_field": "--token-field",
    "sampling's extra": "--request",
}
"""Option by setting, where a collection's folder names the setting otherwise; of an episode."""


def options_of_limits() -> Mapping[str, str]:
    """Return the option by setting, for limits of the run."""
    options = {"tokens": "--max-tokens", "cost": "--max-cost", "seconds": "--max-time"}
    return {f"limit on {name}": option for name, option in options.items()}


def hints(report: Mapping[str, Any], *, has_tool_form: bool) -> list[str]:
    """Return hints about conspicuous counts of a report, one line each.

    Args:
        report: The report.
        has_tool_form: Whether the environment has the option `dialogue: tools`.
    """
    found = []
    if called := report["replies_with_tool_calls"]:
        form = " or collect with --option dialogue=tools," if has_tool_form else ""
        found.append(
            f"{called:,} of {report['requests']:,} replies came with native tool calls, which are "
            f"dropped, because the dialogue is text:{form} serve the model without a tool parser"
        )
    if report["done"] and not report["kept"]:
        reasons = report["dropped"]
        most = max(reasons, key=lambda reason: reasons[reason])
        found.append(
            f"nothing was kept: {reasons[most]:,} of {report['done']:,} were dropped as {most}; "
            "`agenttuning view` and `agenttuning errors` show them"
        )
    return found


def lost_to_calls(report: Mapping[str, Any]) -> bool:
    """Whether nothing was kept of a text dialogue whose model called tools."""
    return bool(report["replies_with_tool_calls"] and report["done"] and not report["kept"])


def warn(report: Mapping[str, Any], *, has_tool_form: bool) -> None:
    """Print `hints` to standard error."""
    for line in hints(report, has_tool_form=has_tool_form):
        errors.print(plain(f"warning: {line}"), soft_wrap=True)


def show(report: dict[str, Any], out: Path, *, has_tool_form: bool) -> None:
    """Print the result of a session."""
    from dataset_builders.collection.card import CALLS, THOUGHTS

    table = Table("", "", title=str(out), show_header=False)
    for name in ("environment", "model", "tasks", "done", "open", "attempts", "kept"):
        table.add_row(name, plain(str(report[name])))
    for reason, number in sorted(report["dropped"].items()):
        table.add_row(f"dropped: {plain(reason)}", str(number))
    if cut := report.get("cut_turns"):
        table.add_row("turns cut at the token limit", f"{cut:,}")
    for fault, number in report.get("tool_calls", {}).items():
        table.add_row(CALLS[fault].lower(), f"{number:,}")
    asked = report["requests"] > 0  # An oracle sends no requests: its cost would be noise.
    for name in ("prompt_tokens", "completion_tokens", "requests") if asked else ():
        table.add_row(name.replace("_", " "), f"{report[name]:,}")
        if name == "prompt_tokens" and report["cached_tokens"]:
            table.add_row("of them cached", f"{report['cached_tokens']:,}")
    for name in ("cost", "cost_per_kept") if asked else ():
        value = report[name]
        # Without a kept trajectory there is no cost per trajectory.
        none = "none kept" if report["cost"] is not None else "unknown"
        shown = none if value is None else f"{value:.4f}"
        table.add_row(name.replace("_", " "), shown)
    for outcome, number in report.get("thoughts", {}).items():
        table.add_row(THOUGHTS[outcome], str(number))
    console.print(table)
    warn(report, has_tool_form=has_tool_form)
    if report["stopped"]:
        total = report["stopped"] in ("run_token_limit", "run_cost_limit")
        how = "raise the limit to resume" if total else "run the same command to resume"
        console.print(f"stopped: {report['stopped']}; {how}", soft_wrap=True)
