"""Output at the end of an Axolotl run: base against result, last losses, next commands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from agenttuning_plugin.console import plain
from agenttuning_plugin.reports.change_table import table
from agenttuning_plugin.reports.compare import compare_run, recorded_warnings, unmeasured
from agenttuning_plugin.reports.source_loss import loss_line, read_losses
from dataset_builders.errors import AgentTuningError
from evaluators.evaluator import RECORDS_FILE
from evaluators.results.evaluations import read_evaluations

SUMMARY = "AGENTTUNING_SUMMARY"
"""Environment variable; `0` turns the output off, for a caller that prints its own."""


def print_run_end(cfg: Any, console: Console) -> None:
    """Print the comparison and the next commands, only in the run's first process.

    Args:
        cfg: Axolotl's validated settings.
        console: Output console.
    """
    if os.environ.get("RANK", "0") != "0" or os.environ.get(SUMMARY) == "0":
        return
    folder = Path(str(cfg.output_dir))
    if (folder / RECORDS_FILE).is_file():
        try:
            _print_table(folder, console)
        except AgentTuningError as error:  # must not abort the finished run
            console.print(plain(f"no comparison: {error}"), soft_wrap=True)
    for row in read_losses(folder)[-1:]:
        console.print(plain(loss_line(row)), soft_wrap=True)
    for line in next_commands(cfg):
        console.print(plain(line), soft_wrap=True)


def _print_table(folder: Path, console: Console) -> None:
    evaluations = read_evaluations(folder)
    comparisons = compare_run(evaluations)
    if comparisons:
        console.print(table(comparisons, title=f"{folder}: base and tuned"))
    else:
        console.print(plain(f"{folder}: no evaluator measured both the base and the result"))
    last = {row["evaluator"]: row for row in evaluations}
    for line in recorded_warnings(last):
        console.print(plain(f"warning: {line}"), soft_wrap=True)
    for line in unmeasured(evaluations):
        console.print(plain(f"not measured: {line}"), soft_wrap=True)


def next_commands(cfg: Any) -> list[str]:
    """Return useful commands for a finished run, one per line."""
    place = str(cfg.output_dir)
    out, folder = shlex.quote(place), Path(place)
    lines = [f"talk to it:      agenttuning chat {out}"]
    lines.append(f"evaluate it:     agenttuning evaluate --model {out} --suite all")
    if (folder / RECORDS_FILE).is_file():
        lines.append(f"compare:         agenttuning compare {out}")
    if (folder / "transcripts").is_dir():
        lines.append(f"read episodes:   agenttuning view {out}")
    if cfg.adapter:
        lines.append(f"merge adapter:   agenttuning merge {out}")
    return lines
