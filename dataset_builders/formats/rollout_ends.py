"""How a recorded rollout ended: whole, or broken by its harness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset_builders.readers.building import RecordDroppedError

GENERATION_ERROR = "generation_error"
"""Drop reason of a rollout that a provider's, sandbox's or harness's error ended.

Its transcript is not the policy's. An error of the scoring alone leaves a whole transcript, without
a reward. The rule is that of prime-rl's export (PrimeIntellect-ai/prime-rl#2989).
"""

UNFINISHED = "unfinished"
"""Drop reason of a rollout that was still running, or was interrupted."""

# Ends at a limit between turns, so every turn is whole.
_LIMITS = ("max_", "prompt_too_long", "compaction_failed")


def check_end(rollout: Mapping[str, Any], errors: Any) -> None:
    """Reject a rollout that did not end by itself, at a limit or at a deadline.

    Args:
        rollout: Holds `stop_condition`, `is_completed` and `is_truncated`, where known.
        errors: What the harness recorded as its errors, for the message.

    Raises:
        RecordDroppedError: An error ended it (`generation_error`), it did not end (`unfinished`),
            or a turn was cut at the token limit (`cut_turn`).
    """
    stop = rollout.get("stop_condition")
    stop = stop if isinstance(stop, str) else ""
    if stop == "error" or stop.endswith("_error"):
        raise RecordDroppedError(
            GENERATION_ERROR,
            f"stop_condition: found {stop!r:.40}{_cause(errors)}, expected an end without error",
        )
    if rollout.get("is_completed") is False:
        raise RecordDroppedError(UNFINISHED, "is_completed: found false, expected true")
    if rollout.get("is_truncated") is True and not stop.startswith(_LIMITS):
        raise RecordDroppedError(
            "cut_turn", "is_truncated: found true: the answer was cut at the token limit"
        )


def check_no_error(error: Any, where: str) -> None:
    """Reject a rollout with a recorded error.

    Raises:
        RecordDroppedError: There is one (`generation_error`).
    """
    if error:
        raise RecordDroppedError(
            GENERATION_ERROR, f"{where}: found {_line(error)}, expected a rollout without errors"
        )


def _cause(errors: Any) -> str:
    last = errors[-1] if isinstance(errors, list) and errors else errors
    return f" ({_line(last)})" if last else ""


def _line(error: Any) -> str:
    if isinstance(error, Mapping):
        names = ("type", "error", "exception_type", "code")
        kind = next((str(error[name]) for name in names if error.get(name)), "error")
        text = error.get("message") or error.get("error_chain_str") or ""
        text = text or error.get("exception_message") or ""
        return " ".join(f"{kind}: {text}".split())[:160]
    return " ".join(str(error).split())[:160]
