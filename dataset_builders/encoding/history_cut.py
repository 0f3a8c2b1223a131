"""Cut the oldest turns out of a long dialogue, as a harness that truncates does.

The opening is kept, and its last message states how many messages are omitted. The notice is
AgentBench's, which the held-in environments show at inference (`environments.history`), so training
and inference see the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dataset_builders.conversation import Message
from dataset_builders.encoding.lengths import call_of


def omit(messages: Sequence[Message], head: int, kept: int) -> tuple[Message, ...]:
    """Leave messages out, with a notice at the end of the opening.

    Args:
        messages: The dialogue.
        head: Number of messages of the opening, at least one.
        kept: Index of the first message after the opening that is kept.
    """
    omitted = kept - head
    if not omitted:
        return tuple(messages)
    notice = f"\n\n[NOTICE] {omitted} messages are omitted."
    last = messages[head - 1]
    noted = replace(last, content=last.content + notice)
    return *messages[: head - 1], noted, *messages[kept:]


def keep_last_turns(
    messages: Sequence[Message], turns: int, opening_turns: int
) -> tuple[Message, ...]:
    """Keep the opening and the last assistant turns of a dialogue, with all that follows them.

    A tool's result is never separated from its call: its turn is then kept, too.

    Args:
        messages: The dialogue up to the turn that is to be generated.
        turns: Number of assistant turns to keep after the opening.
        opening_turns: Number of assistant turns in the opening.
    """
    acting = [i for i, message in enumerate(messages) if message.role == "assistant"]
    acting = acting[opening_turns:]
    if len(acting) <= turns or acting[0] == 0:
        return tuple(messages)
    head, start = acting[0], acting[-turns]
    while (call := _earliest_call(messages, head, start)) < start:
        start = call
    return omit(messages, head, start)


def _earliest_call(messages: Sequence[Message], head: int, start: int) -> int:
    """Return the first turn of those omitted whose call is answered in the part that is kept."""
    calls = (
        call_of(messages, index)
        for index in range(start, len(messages))
        if messages[index].role == "tool"
    )
    return min((call for call in calls if call is not None and call >= head), default=start)
