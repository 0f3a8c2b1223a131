"""Generate a model's answers to the user turns of recorded conversations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dataset_builders.conversation import Conversation, Message
from dataset_builders.endpoints.errors import EpisodeEndedError, UnprovenError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import plain_unicode
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.self_replay.filters import drop_reason
from dataset_builders.sources.made import SelfReplay

KEPT = "kept"
NOT_ASKED = "after_dropped_answer"
"""Turns of a conversation that were not asked, because an earlier answer was dropped."""

TOOLS = "tools"
NO_USER_TURN = "no_user_turn"


@dataclass(slots=True)
class ReplayReport:
    """Counts of a run.

    Attributes:
        conversations: Conversations of the prompts' source: "kept" with at least one answer, or
            dropped by the reason of their first answer, or as "tools" or "no_user_turn".
        answers: User turns, "kept" or by the reason for which the answer was dropped; without
            those of conversations with tools.
        unread: Records of the prompts' source that are no conversations, by reason.
        rows: Conversations written.
        stopped: Limit that stopped the run, or "".
    """

    conversations: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    stopped: str = ""


def asked_turns(messages: Sequence[Message]) -> list[int]:
    """Return the places of user turns to answer: the last of each run of user turns."""
    last = len(messages) - 1
    return [
        place
        for place, message in enumerate(messages)
        if message.role == "user" and (place == last or messages[place + 1].role != "user")
    ]


def unanswerable(conversation: Conversation) -> str:
    """Return why no turn of a conversation can be answered, or "".

    One with tools would need its tools to answer the model's calls.
    """
    messages = conversation.messages
    if conversation.tools or any(m.role == "tool" or m.tool_calls for m in messages):
        return TOOLS
    return "" if asked_turns(messages) else NO_USER_TURN


class Answerer:
    """Answers conversations with a model and counts what is kept.

    Args:
        model: The model.
        settings: Settings of the replay.
        report: Receives the counts.
    """

    def __init__(self, model: Policy, settings: SelfReplay, report: ReplayReport) -> None:
        self._model = model
        self._settings = settings
        self._report = report

    async def answer(self, task_id: str, conversation: Conversation) -> list[Conversation]:
        """Return what is kept of a conversation.

        With `history: own` it is one conversation, which ends before the first dropped answer. With
        `history: recorded` it is one for each kept answer, which alone is trained.

        Args:
            task_id: Identifier of the conversation in the run.
            conversation: A conversation that is not `unanswerable`.

        Raises:
            EndpointError: The endpoint does not work.
        """
        messages = [_plain(message) for message in conversation.messages]
        if self._settings.history == "own":
            kept, reasons = await self._own(task_id, messages)
        else:
            kept, reasons = await self._recorded(task_id, messages)
        self._report.answers.update(reasons)
        self._report.conversations[KEPT if kept else reasons[0]] += 1
        return [
            replace(conversation, messages=tuple(each), id=_named(conversation, number), model="")
            for number, each in kept
        ]

    async def _own(
        self, task_id: str, messages: list[Message]
    ) -> tuple[list[tuple[int | None, list[Message]]], list[str]]:
        asked = asked_turns(messages)
        shown: list[Message] = []
        reasons: list[str] = []
        sound = 0
        for place, message in enumerate(messages):
            if message.role == "assistant":
                continue
            shown.append(message)
            if place not in asked:
                continue
            turn, reason = await self._ask(task_id, len(reasons), shown)
            reasons.append(reason)
            if turn is None:
                break
            shown.append(turn)
            sound = len(shown)
        reasons += [NOT_ASKED] * (len(asked) - len(reasons))
        return ([(None, shown[:sound])] if sound else []), reasons

    async def _recorded(
        self, task_id: str, messages: list[Message]
    ) -> tuple[list[tuple[int | None, list[Message]]], list[str]]:
        history = [replace(message, trained=False) for message in messages]
        asked = asked_turns(messages)
        found = await asyncio.gather(
            *(self._ask(task_id, n, history[: place + 1]) for n, place in enumerate(asked))
        )
        kept: list[tuple[int | None, list[Message]]] = [
            (number, [*history[: place + 1], turn])
            for number, (place, (turn, _)) in enumerate(zip(asked, found, strict=True))
            if turn is not None
        ]
        return kept, [reason for _, reason in found]

    async def _ask(
        self, task_id: str, number: int, shown: Sequence[Message]
    ) -> tuple[Message | None, str]:
        """Return the answer as a trained message, or none, and "kept" or the drop reason."""
        limit = self._settings.max_new_tokens
        request = TurnRequest(list(shown), limit, task_id=task_id, round=number)
        try:
            reply = await self._model.next_turn(request)
        except UnprovenError as error:
            return None, error.reason
        except EpisodeEndedError as error:
            return None, error.reason
        if reason := drop_reason(reply, self._settings.filters):
            return None, reason
        return _turn(reply), KEPT


def _turn(reply: Reply) -> Message:
    reasoning = plain_unicode(reply.reasoning) if reply.reasoning else None
    return Message("assistant", plain_unicode(reply.text), trained=True, reasoning=reasoning)


def _plain(message: Message) -> Message:
    return replace(message, content=plain_unicode(message.content))


def _named(conversation: Conversation, number: int | None) -> str:
    return conversation.id if number is None else f"{conversation.id}#{number}"
