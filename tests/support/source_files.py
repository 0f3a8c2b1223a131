"""Small source files for runs."""

from __future__ import annotations

import json
from pathlib import Path


def write_sides(folder: Path, *, agent: int, general: int) -> dict[str, str]:
    """Write an agent and a general file of so many conversations of two turns, without a format.

    Returns:
        Paths by side, as in a recipe's section.
    """
    found = {}
    for name, number in (("agent", agent), ("general", general)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"what is {i}?"},
                    {"role": "assistant", "content": f"{name} {i} " * (1 + i % 9)},
                ]
            }
            for i in range(number)
        ]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        found[name] = str(path)
    return found
