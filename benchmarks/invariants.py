"""Whether a section trains alike with each trainer, cut of a batch and after a kill.

`python -m benchmarks.invariants` trains the matrix of tests/support/training_checks.py with the
trainers of the interpreter that runs it and adds what was measured to results/invariants.json,
under the versions of its packages. With `--curves` it first stores Axolotl's loss curves as those
that every other run is compared with.

`python -m benchmarks.invariants --table` prints the table of docs/concepts/invariants.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results/invariants.json"
TRAINERS = {"axolotl": "Axolotl", "trl": "TRL"}
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
KINDS = {"curve": "Loss curve", "cut": "Cut of a batch", "resume": "Resuming"}


def installed(name: str) -> str:
    """Version of a package; empty without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def store_curves(inputs: dict[str, str], folder: Path) -> None:
    """Write the loss curves of this interpreter's Axolotl."""
    from tests.support.training_cells import Cell, digest, sections
    from tests.support.training_checks import CURVES, STEPS
    from tests.support.training_runs import run_cells

    cells = [Cell("axolotl", *section, steps=STEPS) for section in sections()]
    runs = run_cells(cells, inputs, folder)
    stored = {
        "inputs": digest(inputs),
        "stack": {name: installed(name) for name in ("axolotl", *PACKAGES)},
        "curves": {cell.section_name: run.curve() for cell, run in runs.items()},
    }
    CURVES.parent.mkdir(exist_ok=True)
    CURVES.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


def measure(trainer: str, inputs: dict[str, str], folder: Path) -> dict[str, Any]:
    """Run the whole matrix of one trainer."""
    from tests.support.training_cells import digest
    from tests.support.training_checks import all_checks, cells_of, reference
    from tests.support.training_runs import run_cells

    if digest(inputs) != reference()["inputs"]:
        raise SystemExit("the model, tokenizer or data differ from those of the stored curves")
    checks = all_checks(trainer)
    runs = run_cells(cells_of(checks), inputs, folder)
    values = {check.name: (check.value(runs), check.bar) for check in checks}
    return {
        "stack": {name: installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        "runs": len(runs),
        "differences": {name: value for name, (value, _) in values.items()},
        "missed": [name for name, (value, bar) in values.items() if not value <= bar],
    }


def table(results: dict[str, Any]) -> str:
    """What was measured: a line for each trainer, a column for each kind of comparison."""
    lines = ["| Trainer | transformers | " + " | ".join(KINDS.values()) + " |", "|---" * 5 + "|"]
    for trainer, found in results.items():
        cells = []
        for kind in KINDS:
            values = [v for name, v in found["differences"].items() if f"-{kind}" in name]
            difference = f"{max(values):.0e}" if max(values) else "0"
            cells.append(f"{len(values)} forms: {difference}")
        lines.append(f"| {trainer} | {found['stack']['transformers']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results, which are added to")
    parser.add_argument("--trainer", choices=TRAINERS, action="append")
    options = parser.parse_args()
    out = options.out
    results = json.loads(out.read_text("utf-8")) if out.exists() else {}
    if options.table:
        print(table(results))
        return
    from tests.support.training_cells import make_inputs

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs = make_inputs(folder)
        if options.curves:
            store_curves(inputs, folder / "curves")
        for trainer in options.trainer or [name for name in TRAINERS if installed(name)]:
            name = f"{TRAINERS[trainer]} {installed(trainer)}"
            results[name] = measure(trainer, inputs, folder / trainer)
            out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
            print(name, results[name]["missed"] or "all within their limits")


if __name__ == "__main__":
    main()
