"""Fit conversations that are too long by removing whole turns, never the end of a turn.

Both methods work on messages and render the result again, so that a row is always a template's
rendering of a conversation. The unit is the *exchange*: a user's turn, or an observation, and the
assistant's turns that answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeVar, get_args

from dataset_builders.conversation import Conversation, Message

LengthPolicy = Literal["drop", "split", "shorten", "truncate", "raise"]
LENGTH_POLICIES: tuple[str, ...] = get_args(LengthPolicy)

Row = TypeVar("Row")
"""An encoded conversation."""

Encode = Callable[[Conversation], tuple[Row, int] | None]
"""Encodes a conversation: the row and its tokens, or None if the template rejects it."""


class Exchange(NamedTuple):
    """Half-open range of messages, and how many of them are trained."""

    start: int
    stop: int
    trained: int


def exchanges(messages: Sequence[Message]) -> list[Exchange]:
    """Divide a conversation, without its leading system turns, into exchanges.

    The answer to a tool call belongs to the exchange of the call.
    """
    first = leading_system(messages)
    starts = [first]
    for index in range(first + 1, len(messages)):
        before = messages[index - 1]
        asks = messages[index].role != "assistant" and before.role == "assistant"
        if asks and not before.tool_calls:
            starts.append(index)
    return _cut(messages, starts)


def steps(messages: Sequence[Message]) -> list[Exchange]:
    """Divide into exchanges, and also after the results of tool calls that another turn follows.

    A trajectory of calls is one exchange, since only its first turn is a user's. A call and its
    results are never separated.
    """
    starts = {part.start for part in exchanges(messages)}
    held: set[int] = set()  # where a cut would separate a result from its call
    call: int | None = None  # of the turn before; also None if that is not a tool result
    for index, message in enumerate(messages):
        if message.role == "assistant" and call is not None:
            starts.add(index)
        call = call_of(messages, index) if message.role == "tool" else None
        if call is not None:
            held.update(range(call + 1, index + 1))
    first = leading_system(messages)
    return _cut(messages, [first, *sorted(starts - held - {first})])


def call_of(messages: Sequence[Message], result: int) -> int | None:
    """Return the index of the turn that made a result's call; None if there is no such call."""
    wanted, nearest = messages[result].tool_call_id, None
    for number in range(result - 1, -1, -1):
        message = messages[number]
        if wanted and any(call.id == wanted for call in message.tool_calls):
            return number
        if nearest is None and message.role == "assistant":
            nearest = number
            if not wanted:
                break
    return nearest if nearest is not None and messages[nearest].tool_calls else None


def _cut(messages: Sequence[Message], starts: Sequence[int]) -> list[Exchange]:
    return [
        Exchange(start, stop, sum(message.trained for message in messages[start:stop]))
        for start, stop in zip(starts, [*starts[1:], len(messages)], strict=True)
    ]


def leading_system(messages: Sequence[Message]) -> int:
    """Count the system turns at the start of a conversation."""
    count = 0
    while count < len(messages) and messages[count].role == "system":
        count += 1
    return count


def split(
    conversation: Conversation, ends: Sequence[int], max_length: int, encode: Encode[Row]
) -> tuple[list[Row], int]:
    """Split a conversation before user turns, into as few rows as fit.

    Each piece begins with the system turn, if there is one, and a user turn, and ends
    with a trained turn. Later pieces do not contain the earlier ones, which suits chat (FastChat
    prepares ShareGPT this way); an agent's would lack its task.

    Args:
        conversation: The conversation.
        ends: For each trained turn the tokens of the whole row up to its end; a guide
            only, every piece is measured.
        max_length: Longest row in tokens.
        encode: Encodes a piece.

    Returns:
        The rows of the pieces, and the number of trained turns left out, since their
        exchange alone is too long.
    """
    messages = conversation.messages
    head = messages[: leading_system(messages)]
    parts = exchanges(messages)
    costs = _costs(parts, ends)
    rows: list[Row] = []
    removed = begin = extra = 0
    while begin < len(parts):
        stop = begin + 1
        while stop < len(parts) and extra + costs[stop + 1] - costs[begin] <= max_length:
            stop += 1
        found = None
        while found is None and stop > begin:
            piece = _until_trained(messages[parts[begin].start : parts[stop - 1].stop])
            found = encode(replace(conversation, messages=head + piece)) if piece else None
            if found is not None and found[1] > max_length:
                # The system turn and the template's own words come again in each piece.
                extra = max(extra, found[1] - (costs[stop] - costs[begin]))
                found = None
            if found is None:
                stop -= 1
        if found is not None:
            rows.append(found[0])
            begin = stop
        else:
            removed += parts[begin].trained
            begin += 1
    return rows, removed


def shorten(
    conversation: Conversation, ends: Sequence[int], max_length: int, encode: Encode[Row]
) -> tuple[Row, int] | None:
    """Remove the oldest steps after the instruction, as few as needed.

    The instruction is everything up to the first trained turn, which stays with it, and
    so do the results of its calls: system turn, rules and their acknowledgement, worked
    examples, the task. What is left after it are the latest steps, each action with the
    observation it answers, each tool call with its results.

    Args:
        conversation: The conversation.
        ends: See `split`.
        max_length: Longest row in tokens.
        encode: Encodes what is left.

    Returns:
        The row and the number of trained turns left out; none if the instruction and
        the last step alone are too long, or the template refuses them.
    """
    messages = conversation.messages
    parts = steps(messages)
    costs = _costs(parts, ends)
    first = next((number for number, part in enumerate(parts) if part.trained), len(parts)) + 1
    for start in range(first + 1, len(parts)):
        gone = costs[start]
        if not messages[parts[start].start - 1].trained:
            # What is between, a tool's results, goes too, but only ends of trained turns
            # are known: the next one's bounds it from above.
            gone = next((cost for cost in costs[start:] if cost > gone), costs[-1])
        if costs[first] + costs[-1] - gone > max_length:
            continue
        kept = messages[: parts[first - 1].stop] + messages[parts[start].start :]
        found = encode(replace(conversation, messages=kept))
        if found is not None and found[1] <= max_length:
            return found[0], sum(part.trained for part in parts[first:start])
    return None


def keep_latest(
    conversation: Conversation, max_length: int, encode: Encode[Row], opening: bool
) -> tuple[Row, int] | None:
    """Remove the oldest turns after the beginning, as few as needed, whichever are trained.

    For rows in which few turns are trained: `split` and `shorten` know the lengths at the ends of
    trained turns alone.

    Args:
        conversation: The conversation; its options tell the opening.
        max_length: Longest row in tokens.
        encode: Encodes what is left.
        opening: Whether the beginning is the opening, and what follows is cut at `steps`, as for
            an agent; else it is the system turn, and the rest is cut at `exchanges`.

    Returns:
        As `shorten`.
    """
    messages = conversation.messages
    head = leading_system(messages)
    if opening and conversation.options is not None:
        acting = [i for i, message in enumerate(messages) if message.role == "assistant"]
        head = acting[min(conversation.options.opening_turns, len(acting) - 1)]
    parts = steps(messages) if opening else exchanges(messages)
    starts = [part.start for part in parts if part.start > head]
    low, high, best = 0, len(starts) - 1, None
    while low <= high:  # The first start from which the rest fits.
        middle = (low + high) // 2
        left = messages[:head] + messages[starts[middle] :]
        found = encode(replace(conversation, messages=left))
        if found is not None and found[1] <= max_length:
            removed = sum(message.trained for message in messages[head : starts[middle]])
            best, high = (found[0], removed), middle - 1
        else:
            low = middle + 1
    return best


def _costs(parts: Sequence[Exchange], ends: Sequence[int]) -> list[int]:
    """Return the (E + 1,) tokens before each exchange; one without a trained turn costs none."""
    costs, trained = [0], 0
    for part in parts:
        trained += part.trained
        costs.append(ends[trained - 1] if trained else 0)
    return costs


def _until_trained(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    end = len(messages)
    while end and not messages[end - 1].trained:
        end -= 1
    return messages[:end]
