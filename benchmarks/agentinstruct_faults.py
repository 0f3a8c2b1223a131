"""How many rows of AgentInstruct have its known faults, and how well a rule finds them.

    python benchmarks/agentinstruct_faults.py --data FOLDER --out FILE

FOLDER holds a JSON Lines file for each split. Counted are the faults of
`dataset_builders.cleaning.agent_faults`. The rule for thoughts about another task is compared with
a reading of every mind2web row in the copy that this project has (`READ`), and with answers swapped
between rows of different tasks, each of which is about another task by construction.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from dataset_builders.cleaning.agent_faults import is_foreign
from dataset_builders.sources.loading import SourceSpec, load_source

CARD = {"os": 195, "db": 538, "alfworld": 336, "webshop": 351, "kg": 324, "mind2web": 122}
"""Rows of each split on the dataset card."""

READ = {
    "foreign": [46, 62, 63, 69, 71, 72],
    "unclear": [70],
    "own": [15, 24, 38, 42, 43, 48, 118],
}
"""Numbers of mind2web rows, by what their thought is about, as read by one person."""


def split_counts(folder: Path) -> dict[str, dict[str, int]]:
    """Return rows and faults of each split."""
    found = {}
    for split, size in CARD.items():
        spec = SourceSpec(str(folder / f"{split}.jsonl"), "agentinstruct")
        report = load_source(spec).report
        found[split] = {"rows": report.read, "card": size, **report.faults}
    return found


def reading(folder: Path) -> dict[str, Any]:
    """Compare the rule with the reading, and with swapped thoughts."""
    rows = [json.loads(line) for line in (folder / "mind2web.jsonl").open(encoding="utf-8")]
    pairs = {
        int(row["id"].rpartition("_")[2]): [turn["value"] for turn in row["conversations"]]
        for row in rows
    }
    judged = {number: kind for kind, numbers in READ.items() for number in numbers}
    flagged = Counter(judged[number] for number, pair in pairs.items() if is_foreign(*pair))
    swapped = [
        is_foreign(prompt, answer)
        for prompt, _ in pairs.values()
        for other, answer in pairs.values()
        if _task(other) != _task(prompt)
    ]
    return {
        "rows": len(pairs),
        "read": {kind: len(numbers) for kind, numbers in READ.items()},
        "flagged": {kind: flagged[kind] for kind in READ},
        "swapped": {"pairs": len(swapped), "flagged": sum(swapped)},
    }


def _task(prompt: str) -> str:
    return prompt.partition("Task: ")[2].partition("\n")[0]


def main() -> None:
    """Count, compare and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    result = {"splits": split_counts(given.data), "mind2web": reading(given.data)}
    given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
