"""Parked tasks: their request failed, and no other answer shows what is at fault."""

from __future__ import annotations

from dataclasses import dataclass

from dataset_builders.endpoints.errors import UnprovenError
from dataset_builders.errors import EndpointError

SEVERAL = 3
"""Number of consecutive failing tasks, without an answer in between, that blame the endpoint."""


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked task.

    Attributes:
        task_id: The task.
        attempt: Its attempt, which is still open.
        error: The error of its request.
        answers: Requests that had been answered by then.
    """

    task_id: str
    attempt: int
    error: UnprovenError
    answers: int


class Parking:
    """The parked tasks of a session."""

    def __init__(self) -> None:
        self._parked: list[Parked] = []

    def add(self, task: Parked) -> None:
        """Park a task.

        Raises:
            EndpointError: It is one of several in a row, with no answer in between.
        """
        self._parked.append(task)
        in_a_row = sum(each.answers == task.answers for each in self._parked)
        if in_a_row >= SEVERAL:
            raise EndpointError(f"{task.error} ({in_a_row} different tasks failed in a row)")

    def take(self) -> list[Parked]:
        """Remove and return all tasks, in parking order."""
        taken, self._parked = self._parked, []
        return taken
