"""An agent's turn taken apart: what it thought, and what it did."""

from __future__ import annotations

import re

# Where the action begins, in the formats of the paper's agent tasks: `Act: bash`,
# `Action: Operation`, `ACTION: go to desk 1`, `Answer: B.`, `Final Answer: #3`.
_ACTION = re.compile(r"^[ \t]*(?:act|action|answer|final answer)[ \t]*\d*[ \t]*:", re.I | re.M)
_THOUGHT = re.compile(r"^\s*(?:think|thought)[ \t]*\d*[ \t]*:[ \t]*", re.I)


def action_start(text: str) -> int | None:
    """Place of the first character of a turn's action, label included; None without one."""
    found = _ACTION.search(text)
    return found.start() if found else None


def split_turn(text: str) -> tuple[str, str]:
    """Split an assistant turn into thought and action.

    Args:
        text: The turn.

    Returns:
        The thought without its label, and the action with its own; all of a turn without
        an action's label is thought. Nothing is lost but the label and outer blanks.
    """
    start = action_start(text)
    thought, action = (text, "") if start is None else (text[:start], text[start:])
    return _THOUGHT.sub("", thought).strip(), action.strip()
