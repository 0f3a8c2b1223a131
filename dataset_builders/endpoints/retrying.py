"""Retry policy of failed requests; docs/guides/collect.md has the rules."""

from __future__ import annotations

import math
import random
import time

from dataset_builders.endpoints.address import hint
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.errors import (
    ENDPOINT_ERROR,
    EpisodeEndedError,
    Failure,
    UnprovenError,
)
from dataset_builders.errors import EndpointError

_LONGEST_BACK_OFF = 60.0


class Trail:
    """The failures of one request so far.

    Args:
        endpoint: The endpoint, with its retry settings.
        parks: Whether the caller parks a task at an `UnprovenError`, and retries it later.

    Attributes:
        tries: Number of failures.
        failures: Number of failures other than 429.
        passed_over: Number of 429s while others were answered.
        others: Whether others were answered: since the previous failure, if the caller parks tasks,
            else since it was sent.
    """

    def __init__(self, endpoint: Endpoint, *, parks: bool) -> None:
        self.tries = self.failures = self.passed_over = 0
        self.others = False
        self._endpoint = endpoint
        self._parks = parks
        self._begun = time.monotonic()
        self._failed_at = math.inf

    @property
    def alone(self) -> bool:
        """Whether it repeatedly gets 429 while others are answered."""
        return self.passed_over >= self._endpoint.tries

    def note(self, failure: Failure, answered_at: float) -> None:
        """Record a failure.

        Args:
            failure: Its classification.
            answered_at: Monotonic time of the last answer to any request.
        """
        # A server that dies had answered others since this one was sent, and none since it failed.
        self.others = answered_at > (self._failed_at if self._parks else self._begun)
        self.tries += 1
        self.failures += not failure.limited
        self.passed_over += failure.limited and self.others
        self._failed_at = time.monotonic()

    def give_up(
        self, failure: Failure, answered_at: float, *, answers: int, again: int | None
    ) -> None:
        """Raise the failure's error, unless the request may be retried.

        Args:
            failure: The last one.
            answered_at: See `note`.
            answers: Requests that were answered.
            again: See `EndpointClient.again`.

        Raises:
            EpisodeEndedError: This episode cannot continue.
            UnprovenError: It cannot, and no other request was answered in the meantime.
            EndpointError: No episode can continue.
        """
        endpoint = self._endpoint
        line = f"{endpoint}: {failure.message}{hint(endpoint.address, failure.status)}"
        if failure.verdict == "episode":
            raise EpisodeEndedError(failure.reason, failure.message)
        if failure.verdict == "run":
            if failure.doubtful:
                raise UnprovenError(line, failure.reason, spoke=True)
            raise EndpointError(line)
        if time.monotonic() - max(self._begun, answered_at) > endpoint.patience:
            raise EndpointError(f"{endpoint}: no answer for long: {failure.message}")
        if self.tries >= endpoint.tries and _own_fault(failure, answers, again):
            raise EpisodeEndedError(ENDPOINT_ERROR, failure.message)
        if self._parks and self.passed_over >= 2 * endpoint.tries:
            raise UnprovenError(f"{line} (others were answered meanwhile)", failure.reason)
        if self.failures < endpoint.tries:
            return
        if self.others:  # This request is at fault.
            raise EpisodeEndedError(ENDPOINT_ERROR, failure.message)
        down = f"{endpoint}: {self.failures} tries, no request answered meanwhile: "
        if failure.absent:
            raise EndpointError(down + failure.message)
        raise UnprovenError(down + failure.message, failure.reason, spoke=_spoke(failure))

    def pause(self, failure: Failure) -> float:
        """Return the seconds to wait before a retry, in addition to the pause of all requests."""
        # "Retry-After: 0" must not cause a busy loop.
        if self.alone:
            return max(failure.wait or 0.0, self._back_off())
        return self._back_off() if (failure.wait or 0.0) < self._endpoint.back_off else 0.0

    def _back_off(self) -> float:
        longest = min(_LONGEST_BACK_OFF, self._endpoint.back_off * 2.0 ** (self.tries - 1))
        # Jitter: otherwise requests that failed together return together.
        return longest * random.uniform(0.5, 1.0)


def _own_fault(failure: Failure, answers: int, again: int | None) -> bool:
    """Whether a parked task that fails again is at fault, not the endpoint."""
    if again is None or failure.absent:
        return False
    return answers > again or (_spoke(failure) and answers > 0)


def _spoke(failure: Failure) -> bool:
    """Whether the endpoint itself refused; a gateway's status or a timeout may be an outage."""
    return failure.reason.startswith("http_") and not failure.overload
