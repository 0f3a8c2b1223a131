"""Failure modes of agents, after the paper's error analysis (section 3.3 and its figure).

The paper counts them with unpublished rules. These are ours; they need only a record, so that any
saved evaluation can be analysed. docs/guides/compare.md has them as a table, with their rates on
AgentInstruct's own successful trajectories.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.collection.filters import refuses
from dataset_builders.environments.dialogue import BAD_FORMAT
from dataset_builders.environments.tool_dialogue import MALFORMED_CALL
from dataset_builders.environments.tool_schemas import INVALID_ARGUMENTS, UNKNOWN_TOOL
from evaluators.stats.intervals import Metric, proportion
from evaluators.tasks.turns import action_start, calls_text, split_message

INVALID_ACTION = "invalid_action"
SHORT_REPETITION = "short_term_repetition"
LONG_REPETITION = "long_term_repetition"
REFUSAL = "refusal"
CALL_ERROR = "function_call_error"
CALL_REPETITION = "function_repetition"

MODES = (
    INVALID_ACTION, SHORT_REPETITION, LONG_REPETITION, REFUSAL, CALL_ERROR, CALL_REPETITION,
)  # fmt: skip
"""In the order of the paper's figure."""

TOOL_MODES = (MALFORMED_CALL, UNKNOWN_TOOL, INVALID_ARGUMENTS)
"""Of dialogues with tools: an episode has a call with this fault."""

CALLING = "knowledge_graph"
"""The environment with function calls as actions; the last two modes apply only to it."""

_IN_A_ROW = 3
_TIMES = 3
_LONGEST_CYCLE = 8
_INVALID_SHARE = 1 / 3

_CALL = re.compile(r"\w+\s*\([^()]*(?:\([^()]*\)[^()]*)*\)|final answer", re.I)
_ACTS = {
    "science_world": re.compile(r"\A\s*Think:"),
    "web_arena": re.compile(r"```.+?```", re.S),
    "card_game": re.compile(r"\{[^{}]*\}"),
    "hotpot_qa": re.compile(r"^\s*(?:search|lookup|finish)\s*\[", re.I | re.M),
}
"""How a turn acts, or is marked as a thought, in environments without action labels."""
# Beside what `refuses` finds anywhere: in a turn without an action these refuse too.
_UNABLE = re.compile(
    r"\b(?:i(?:['\u2019]m| am)? (?:unable|not able)|i apologi[sz]e|i (?:cannot|can['\u2019]?t)\b"
    r"|i do(?:n['\u2019]t| not) have (?:access|the ability))",
    re.I,
)


def failure_modes(record: Mapping[str, Any], environment: str) -> list[str]:
    """Return the failure modes of an episode; there may be several, or none for a failed one.

    Args:
        record: Of the episode, see `base.Record`, with `messages`, `rounds`,
            `valid_rounds` and `exit_reason`.
        environment: Its registry name.

    Returns:
        Names of `MODES` and `TOOL_MODES`, in their order.
    """
    messages = _own_turns(record)
    if not messages:
        return []
    turns = [message["content"] for message in messages]
    actions = [_plain(split_message(message)[1] or message["content"]) for message in messages]
    faults = record.get("call_counts", {})
    invalid = int(record["rounds"]) - int(record["valid_rounds"])
    missing = sum(_CALL.search(action) is None for action in actions)
    calls = environment == CALLING
    shown = {
        INVALID_ACTION: record.get("exit_reason") == BAD_FORMAT
        or (min(missing, invalid) if calls else invalid) > _INVALID_SHARE * len(turns),
        SHORT_REPETITION: _longest_run(actions) >= _IN_A_ROW,
        LONG_REPETITION: _has_cycle(actions),
        REFUSAL: any(_refuses(m["content"], environment) for m in messages if not calls_text(m)),
        CALL_ERROR: calls and invalid > missing,
        CALL_REPETITION: calls and _calls_again(actions),
        **{mode: bool(faults.get(mode)) for mode in TOOL_MODES},
    }
    return [mode for mode in (*MODES, *TOOL_MODES) if shown[mode]]


def failure_rates(records: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """Return the share of episodes by mode, as figures `failure_<mode>`.

    Args:
        records: Measured and analysed ones: those with `failures`.

    Returns:
        The modes that apply to the environment; empty if no record was analysed.
    """
    looked_at = [record for record in records if "failures" in record]
    if not looked_at:
        return {}
    counts = Counter(mode for record in looked_at for mode in record["failures"])
    calls = any(str(record["item"]).startswith(f"{CALLING}-") for record in looked_at)
    tools = any("call_counts" in record for record in looked_at)
    modes = (*(MODES if calls else MODES[:4]), *(TOOL_MODES if tools else ()))
    return {f"failure_{mode}": proportion(counts[mode], len(looked_at)) for mode in modes}


def _own_turns(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the model's turns, without those of a demonstration."""
    said = [message for message in record.get("messages") or () if message["role"] == "assistant"]
    return said[len(said) - int(record.get("rounds", 0)) :]


def _plain(action: str) -> str:
    return " ".join(action.casefold().split())


def _longest_run(actions: Sequence[str]) -> int:
    longest = run = 0
    for number, action in enumerate(actions):
        run = run + 1 if number and action == actions[number - 1] else 1
        longest = max(longest, run)
    return longest


def _has_cycle(actions: Sequence[str]) -> bool:
    """Whether two to eight actions, not all equal, are repeated three times in a row."""
    for size in range(2, min(_LONGEST_CYCLE, len(actions) // _TIMES) + 1):
        for start in range(len(actions) - size * _TIMES + 1):
            cycle = actions[start : start + size]
            if len(set(cycle)) > 1 and all(
                actions[start + size * n : start + size * (n + 1)] == cycle
                for n in range(1, _TIMES)
            ):
                return True
    return False


def _refuses(turn: str, environment: str) -> bool:
    # A thought may say "I cannot find it": a turn with an action is not a refusal.
    acts = _ACTS.get(environment)
    if action_start(turn) is not None or (acts is not None and acts.search(turn)):
        return False
    return refuses(turn) or _UNABLE.search(turn) is not None


def _calls_again(actions: Sequence[str]) -> bool:
    """Whether one call was made three times, not necessarily in a row."""
    calls = (found[0] for action in actions if (found := _CALL.search(action)))
    return any(count >= _TIMES for count in Counter(calls).values())
