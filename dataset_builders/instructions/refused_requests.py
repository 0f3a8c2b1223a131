"""Tolerate single failing requests without stopping the run."""

from __future__ import annotations

import asyncio

from dataset_builders.endpoints.errors import (
    BAD_REQUEST,
    ENDPOINT_ERROR,
    EpisodeEndedError,
    UnprovenError,
)
from dataset_builders.endpoints.reply import Reply
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.parking import SEVERAL
from dataset_builders.rollouts.policy import Policy, TurnRequest
from dataset_builders.rollouts.recorded_client import RecordedClient


class PatientModel(Policy):
    """A client whose single requests may fail without stopping the run.

    A request that fails with no answer to anybody (`UnprovenError`) waits until others are
    answered or none is in flight, and is sent once more. The rules are the collector's, see
    docs/guides/collect.md: it ends alone where others were answered since it failed first, or
    where the endpoint itself refuses it and has answered before. Otherwise it stays undecided: the
    caller may send it again after others. Three different requests in a row that fail with no
    answer between them stop the run.

    Args:
        client: Sends the requests.
        proven: Whether the endpoint has answered in an earlier session, with these settings.
    """

    def __init__(self, client: RecordedClient, proven: bool = False) -> None:
        self._client = client
        self._proven = proven
        self._open = 0
        self._waiting = 0
        self._failed_at: dict[tuple[object, ...], int] = {}
        self._undecided: tuple[UnprovenError, int] | None = None
        self._changed = asyncio.Event()

    @property
    def undecided(self) -> UnprovenError | None:
        """The last undecided request's error, if none was answered since."""
        if self._undecided is None or self._undecided[1] < self._client.transport.answers:
            return None
        return self._undecided[0]

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`.

        Raises:
            UnprovenError: This request gets no turn yet; it may be sent again after others.
        """
        self._open += 1
        transport = self._client.transport
        place = request.task_id, request.attempt, request.round, request.purpose
        try:
            try:
                return await self._client.next_turn(request)
            except UnprovenError as error:
                if transport.answers > self._failed_at.get(place, transport.answers):
                    raise ended(error) from error
                answers = self._failed_at[place] = transport.answers
                self._check_several(error, answers)
            await self._others(answers)
            try:
                return await self._client.next_turn(request)
            except UnprovenError as error:
                if self._is_own_fault(error, answers):
                    raise ended(error) from error
                self._undecided = error, answers
                raise
        finally:
            self._open -= 1
            self._changed.set()

    def _check_several(self, error: UnprovenError, answers: int) -> None:
        in_a_row = list(self._failed_at.values()).count(answers)
        if in_a_row >= SEVERAL:
            raise EndpointError(f"{error} ({in_a_row} different requests failed in a row)")

    async def _others(self, answers: int) -> None:
        """Wait until another request is answered, or all requests in flight wait here."""
        self._waiting += 1
        self._changed.set()
        try:
            while self._client.transport.answers == answers and self._waiting < self._open:
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._waiting -= 1

    def _is_own_fault(self, error: UnprovenError, answers: int) -> bool:
        answered = self._client.transport.answers
        refused = error.spoke and answered > 0
        return answered > answers or refused or (error.reason == BAD_REQUEST and self._proven)


def ended(error: UnprovenError) -> EpisodeEndedError:
    """Return the error of a request that ends alone."""
    reason = BAD_REQUEST if error.reason == BAD_REQUEST else ENDPOINT_ERROR
    return EpisodeEndedError(reason, str(error))
