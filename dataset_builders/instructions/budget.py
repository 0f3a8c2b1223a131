"""Spending limits of instruction generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from dataset_builders.endpoints.errors import EpisodeEndedError, UnprovenError
from dataset_builders.endpoints.reply import Reply
from dataset_builders.instructions.refused_requests import ended
from dataset_builders.rollouts.ledger import Usage

TOKEN_LIMIT = "token_limit"
COST_LIMIT = "cost_limit"


class BudgetSpentError(Exception):
    """A spending limit of the run is reached.

    Attributes:
        reason: Name of the limit.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def budget(
    spent: Callable[[], Usage], max_tokens: int | None = None, max_cost: float | None = None
) -> Callable[[], None]:
    """Return a check that a client calls before it sends; requests in flight are still paid for.

    Args:
        spent: Returns the usage of all replies so far, including earlier sessions.
        max_tokens: Tokens read and written after which nothing is sent.
        max_cost: Cost after which nothing is sent, in the price table's currency.
    """

    def may_send() -> None:
        now = spent()
        if max_tokens is not None and now.tokens >= max_tokens:
            raise BudgetSpentError(TOKEN_LIMIT)
        if max_cost is not None and (now.cost is None or now.cost >= max_cost):
            raise BudgetSpentError(COST_LIMIT)

    return may_send


Outcome = Reply | EpisodeEndedError | BudgetSpentError


async def together(requests: Iterable[Coroutine[Any, Any, Reply]]) -> list[Outcome]:
    """Await all replies or exceptions, in the order of the requests.

    A request that stays undecided counts as ended: the next ones show whether the endpoint works.

    Raises:
        Exception: Any other failure, after the other requests, which are paid for, have returned.
    """
    results = await asyncio.gather(*requests, return_exceptions=True)
    outcomes: list[Outcome] = []
    for result in results:
        if isinstance(result, UnprovenError):
            result = ended(result)
        if not isinstance(result, Reply | EpisodeEndedError | BudgetSpentError):
            raise result
        outcomes.append(result)
    return outcomes
