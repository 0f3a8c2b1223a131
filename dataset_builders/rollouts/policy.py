"""Policy protocol, and the policies that need no model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dataset_builders.conversation import Message
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply, reply_of
from dataset_builders.errors import EnvironmentFailureError
from dataset_builders.rollouts.ledger import ACT


async def _no_oracle() -> str:
    raise EnvironmentFailureError("no episode is running")


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A dialogue that needs its next assistant turn, and its place in the run.

    Attributes:
        messages: The dialogue as shown to the model, ending in a user turn or a tool's result.
        max_tokens: Maximum tokens of the turn.
        task_id: The task it belongs to.
        attempt: Attempt at the task, from 0; another attempt is another request.
        round: Turn within the attempt, from 0.
        purpose: Purpose of the request.
        index: Number of the episode, in the order in which episodes began.
        oracle: Calls the environment's own oracle, in the environment's thread.
        tools: JSON text of the tools that the model may call, in the OpenAI format; "" if the
            dialogue is text.
    """

    messages: Sequence[Message]
    max_tokens: int = 1024
    task_id: str = ""
    attempt: int = 0
    round: int = 0
    purpose: str = ACT
    index: int = 0
    oracle: Callable[[], Awaitable[str]] = _no_oracle
    tools: str = ""


class Policy(Protocol):
    """Writes assistant turns: a local model, an endpoint, an oracle, a script."""

    async def next_turn(self, request: TurnRequest) -> Reply:
        """Write the next assistant turn of a dialogue.

        Returns:
            The turn; one with `finish_reason` "context_full" did not fit the model's context, which
            ends its episode with the reward reached so far.

        Raises:
            EpisodeEndedError: This episode gets no turn; others may.
            EndpointError: The endpoint does not work.
        """

    def set_in_play(self, episodes: int) -> None:
        """Receive the number of episodes in play or about to begin, whenever it changes."""
        return


class OraclePolicy(Policy):
    """The environment's own oracle; costs nothing."""

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        # An episode that never waits would block the event loop.
        await asyncio.sleep(0)
        return replace(reply_of(await request.oracle()), cost=0.0)


@dataclass(frozen=True, slots=True)
class ScriptedPolicy(Policy):
    """Fixed turns, whatever the dialogue; for tests and baselines.

    Attributes:
        replies: Turns of an episode, repeated from the start when exhausted; None is one that does
            not fit the context. An `Answer` may call tools.
    """

    replies: Sequence[str | None]

    async def next_turn(self, request: TurnRequest) -> Reply:
        """See `Policy.next_turn`."""
        await asyncio.sleep(0)
        text = self.replies[request.round % len(self.replies)]
        return Reply("", CONTEXT_FULL) if text is None else replace(reply_of(text), cost=0.0)
