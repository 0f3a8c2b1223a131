"""Small source files for runs."""

from __future__ import annotations

import json
from pathlib import Path


def write_sides(folder: Path, *, agent: int, general: int) -> dict[str, str]:
    """Write an agent and a general file of so many conversations of two turns, without a format.

    Returns:
        Paths by side, as in a recipe's section.
    """
    return {
        name: write_chats(folder / f"{name}.jsonl", name, number, longest=9)
        for name, number in (("agent", agent), ("general", general))
    }


def write_chats(path: Path, answer: str, number: int, *, longest: int = 4) -> str:
    """Write conversations of one question each, with 1 to `longest` answers in one turn.

    Returns:
        The file's path.
    """
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"what is {i}?"},
                {"role": "assistant", "content": f"{answer} {i} " * (1 + i % longest)},
            ]
        }
        for i in range(number)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)
