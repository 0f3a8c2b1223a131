"""Reconstruct which AgentInstruct turns are trained on, for copies without `loss` flags.

Several public copies hold the conversations without the flags. In the original they exclude the
beginning of each conversation, and the texts show where that ends:

- `db`, `webshop`, `alfworld`: the first gpt turn only acknowledges the instruction;
- `os`, `kg`: a demonstration comes first; a human turn with a fixed opening ends it;
- `mind2web`: there is one gpt turn, and it is trained.

Measured: the 538 `db` conversations of a copy that kept its flags all follow the rule
(their flags are false, then true on every later turn), and the average number of trained
turns under it equals the card's for `db` and `alfworld`. For the others it rests on
samples; `kg` is the least certain.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataset_builders.readers.building import RecordDroppedError, Turn

_ACKNOWLEDGEMENTS = {
    "db": "Ok.",
    "webshop": "Ok.",
    "alfworld": "OK. I'll follow your instructions and try my best to solve the task.",
}
_OPENINGS = {
    "os": "Now, I will start a new problem in a new OS.",
    "kg": "A new question",
}
_SINGLE = "mind2web"

_REASON = "loss_rule_unmet"


def reconstruct_loss(task: str, turns: Sequence[Turn]) -> list[bool]:
    """Return the reconstructed training flags of a conversation.

    Args:
        task: Name of the task, such as "db".
        turns: Turns of the conversation.

    Returns:
        One flag per turn; false on all turns except the assistant's.

    Raises:
        RecordDroppedError: The task is unknown, or the text that the rule relies on is missing
            (`loss_rule_unmet`): guessing would train on a demonstration.
    """
    start = _trained_from(task, turns)
    return [turn.role == "assistant" and turn.position >= start for turn in turns]


def _trained_from(task: str, turns: Sequence[Turn]) -> int:
    replies = [turn for turn in turns if turn.role == "assistant"]
    if task in _ACKNOWLEDGEMENTS:
        expected = _ACKNOWLEDGEMENTS[task]
        if not replies or replies[0].content.strip() != expected:
            found = repr(replies[0].content[:40]) if replies else "none"
            raise RecordDroppedError(
                _REASON, f"first gpt turn of {task}: found {found}, expected {expected!r}"
            )
        return replies[0].position + 1
    if task in _OPENINGS:
        opening = _OPENINGS[task]
        starts = [t.position for t in turns if t.role == "user" and t.content.startswith(opening)]
        if len(starts) != 1:
            raise RecordDroppedError(
                _REASON,
                f"human turns of {task} that start with {opening!r}: found {len(starts)}, "
                "expected one",
            )
        return starts[0]
    if task != _SINGLE:
        known = ", ".join((*_ACKNOWLEDGEMENTS, *_OPENINGS, _SINGLE))
        raise RecordDroppedError(_REASON, f"task: found {task!r:.40}, expected one of {known}")
    if len(replies) != 1:
        raise RecordDroppedError(
            _REASON, f"gpt turns of {task}: found {len(replies)}, expected one"
        )
    return 0
