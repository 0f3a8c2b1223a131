"""Select the turns that a judge model finds critical: the selector `judge`.

ATLaS (arXiv 2503.02197) trains on about 30 % of the turns, chosen by a strong model that looks for
plans, decisive observations and actions, and corrections. The prompt is our own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_builders.conversation import Conversation, Message
from dataset_builders.endpoints.errors import EpisodeEndedError
from dataset_builders.errors import DataError
from dataset_builders.instructions import templates
from dataset_builders.instructions.budget import BudgetSpentError, together
from dataset_builders.instructions.run_io import Writer, asking
from dataset_builders.rollouts.policy import Policy, TurnRequest

PURPOSE = "critical_turns"
MAX_TOKENS = 512
ATTEMPTS = 2
"""Maximum requests per conversation; after that all of its turns are trained."""

MAX_CHARACTERS = 2000
"""Characters of a message that the judge is shown; of a longer one the middle is left out."""

_LIST = re.compile(r"\[[\d\s,]*\]")


@dataclass(slots=True)
class CriticalTurnsReport:
    """What the judge decided.

    Attributes:
        conversations: Conversations by outcome: "judged"; "single_turn" (only one trained turn,
            nothing to choose); "unreadable" or the reason of a request without reply: all of their
            turns stay trained.
        turns: Trained turns of the judged conversations: all of them, and the chosen ones.
    """

    conversations: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)


def trained_turns(conversation: Conversation) -> list[int]:
    """Return the indices of a conversation's trained turns."""
    return [index for index, message in enumerate(conversation.messages) if message.trained]


def num_requests(conversations: Sequence[Conversation]) -> int:
    """Return the number of requests for these conversations, if each is answered at once."""
    return sum(conversation.num_trained > 1 for conversation in conversations)


async def critical_turns(
    conversations: Sequence[Conversation],
    writer: Writer,
    out: Path,
    share: float,
    report: CriticalTurnsReport,
) -> list[list[int]]:
    """Ask a model for the critical turns of each conversation.

    Args:
        conversations: The conversations.
        writer: The model.
        out: Folder of its replies; none is paid for twice.
        share: Share of the turns to ask for, in (0, 1); at least one turn each.
        report: Updated.

    Returns:
        Indices of the chosen turns of each conversation.

    Raises:
        EndpointError: The endpoint does not work.
        ConfigError: The folder was made with other settings, or is in use.
        DataError: No reply could be used.
    """
    chosen: list[list[int]] = []
    async with asking(writer, out, {"purpose": PURPOSE}) as (model, _):
        for start in range(0, len(conversations), writer.concurrency):
            group = conversations[start : start + writer.concurrency]
            chosen += await _group(group, len(chosen), model, share, report)
    outcomes = report.conversations
    if outcomes.total() > outcomes["single_turn"] and not outcomes["judged"]:
        counts = ", ".join(f"{reason} {number:,}" for reason, number in outcomes.items())
        raise DataError(f"train_on: judge: {writer.endpoint}: no reply could be used: {counts}")
    return chosen


async def _group(
    group: Sequence[Conversation],
    first: int,
    model: Policy,
    share: float,
    report: CriticalTurnsReport,
) -> list[list[int]]:
    found: list[list[int] | None] = []
    why: list[str] = []
    for conversation in group:
        single = conversation.num_trained < 2
        found.append(trained_turns(conversation) if single else None)
        why.append("single_turn" if single else "unreadable")
    for attempt in range(ATTEMPTS):
        open_ones = [n for n, turns in enumerate(found) if turns is None]
        replies = await together(
            model.next_turn(_request(group[n], first + n, attempt, share)) for n in open_ones
        )
        for number, reply in zip(open_ones, replies, strict=True):
            if isinstance(reply, BudgetSpentError):
                raise reply
            if isinstance(reply, EpisodeEndedError):
                why[number] = reply.reason
            elif turns := read_choice(reply.text, group[number]):
                found[number], why[number] = turns, "judged"
                report.turns.update(all=group[number].num_trained, chosen=len(turns))
    report.conversations.update(why)
    return [found[n] or trained_turns(conversation) for n, conversation in enumerate(group)]


def _request(conversation: Conversation, number: int, attempt: int, share: float) -> TurnRequest:
    turns = conversation.num_trained
    question = templates.dialogue(
        "critical_turns",
        transcript=numbered_transcript(conversation.messages),
        turns=str(turns),
        wanted=str(max(1, round(share * turns))),
    )
    return TurnRequest(
        question, MAX_TOKENS, conversation.id or str(number), attempt, number, PURPOSE
    )


def numbered_transcript(messages: Sequence[Message]) -> str:
    """Return a conversation as text, its trained turns numbered from 1."""
    blocks: list[str] = []
    number = 0
    for message in messages:
        number += message.trained
        name = f"TURN {number}" if message.trained else ""
        blocks.append(templates.block(message, name, MAX_CHARACTERS))
    return "\n\n".join(blocks)


def read_choice(text: str, conversation: Conversation) -> list[int]:
    """Return the indices of the turns that a reply names; empty if it names none or others."""
    turns = trained_turns(conversation)
    lists = _LIST.findall(text)  # The last one: a model may reason before it.
    try:
        numbers: set[int] = set(json.loads(lists[-1])) if lists else set()
    except ValueError:
        return []
    known = numbers <= set(range(1, len(turns) + 1))
    return [turns[number - 1] for number in sorted(numbers)] if known else []
