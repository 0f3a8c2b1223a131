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
    docs/guides/collect.md: it ends alone where others were answered meanwhile, or where the
    endpoint itself refuses it and has answered before. Three requests in a row that fail with
    no answer between them stop the run.

    Args:
        client: Sends the requests.
        proven: Whether the endpoint has answered in an earlier session, with these settings.
    """

    def __init__(self, client: RecordedClient, proven: bool = False) -> None:
        self._client = client
        self._proven = proven
        self._open = 0
        self._waiting = 0
        self._failed_at: list[int] = []
        self._changed = asyncio.Event()

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        self._open += 1
        try:
            try:
                return await self._client.next_turn(request)
            except UnprovenError as error:
                answers = self._client.transport.answers
                self._note(error, answers)
            await self._others(answers)
            try:
                return await self._client.next_turn(request)
            except UnprovenError as error:
                raise self._meant(error, answers) from error
        finally:
            self._open -= 1
            self._changed.set()

    def _note(self, error: UnprovenError, answers: int) -> None:
        self._failed_at.append(answers)
        if (in_a_row := self._failed_at.count(answers)) >= SEVERAL:
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

    def _meant(self, error: UnprovenError, answers: int) -> Exception:
        answered = self._client.transport.answers
        alone = error.spoke and answered > 0
        if error.reason == BAD_REQUEST:
            alone = alone or self._proven
        if answered > answers or alone:
            reason = BAD_REQUEST if error.reason == BAD_REQUEST else ENDPOINT_ERROR
            return EpisodeEndedError(reason, str(error))
        return EndpointError(str(error))
