"""Plot of the study of eta in README and docs, made from the committed scores.

python -m benchmarks.study_plot    # writes docs/assets/study-eta.svg
"""

from __future__ import annotations

from itertools import product

from agenttuning_plugin.reports.runs.arms import Arm
from agenttuning_plugin.reports.runs.figures import Cell, Figure
from agenttuning_plugin.reports.runs.plot import plot_file
from agenttuning_plugin.reports.runs.read import BASE
from agenttuning_plugin.reports.runs.table import RunTable
from benchmarks.study_comparisons import ETA_ITEMS, ETAS, GENERAL, KL, NAMES, SUCCESS, grid
from benchmarks.study_tables import ROOT, scores_of

FILE = ROOT / "docs/assets/study-eta.svg"
PANELS = (("database", "success", SUCCESS), ("KL from the base on chat,", "nats", KL))


def plot_svg() -> str:
    """Return success and KL against eta, a line for each kind of general data, as SVG."""
    scores = scores_of(ETA_ITEMS)
    # With eta 1 there is no general data: both lines end in the same arm.
    arms = {
        f"eta {eta}, {NAMES[general]}": (
            grid(eta, general),
            {"eta": eta, "general": NAMES[general]},
        )
        for general, eta in product(GENERAL, ETAS)
        if scores.seeds(grid(eta, general))
    }
    figures = [
        Figure(
            evaluator, score, "", metric.percent,
            [Cell(BASE, scores.mean(BASE, metric))]
            + [Cell(label, scores.mean(arm, metric)) for label, (arm, _) in arms.items()],
        )
        for evaluator, score, metric in PANELS
    ]  # fmt: skip
    shown = [Arm(label, values, ()) for label, (_, values) in arms.items()]
    table = RunTable(["eta", "general"], shown, BASE, figures, {}, [])
    return plot_file(table, figures)


if __name__ == "__main__":
    FILE.write_text(plot_svg(), "utf-8")
