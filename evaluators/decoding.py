"""How a model is asked, wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dataset_builders.conversation import Message


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is written.

    Attributes:
        max_new_tokens: Longest answer in tokens.
        temperature: 0 takes the likeliest token; greedy decoding.
        top_p: Probability mass that sampling draws from.
        stop: Texts that end an answer; they are not part of it.
        seed: Of the sampling, so that an answer does not depend on its batch.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


class LanguageModel(Protocol):
    """A model that answers: in this process or behind a server."""

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        """Write the next assistant turn of every dialogue.

        Args:
            dialogues: Messages so far of each, the last one not the model's.
            decoding: How.

        Returns:
            One turn per dialogue, blanks around it removed; None where the context has no
            room for one. What the model thought is no part of the text: turns are
            `reasoning.Answer`, which keeps it beside.

        Raises:
            EndpointError: The server does not answer.
        """

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """Go on with bare texts, without a chat template; otherwise as `chat`.

        Raises:
            EndpointError: The server does not answer, or knows no such route.
        """

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[list[float] | None]:
        """Log-probability of each candidate as the first token of the next assistant turn.

        Args:
            dialogues: As for `chat`.
            candidates: Texts of a single token each, such as "A".

        Returns:
            For every dialogue one value per candidate, in nats, -inf where a server does
            not tell; None where the context has no room.

        Raises:
            ConfigError: A candidate is not a single token.
            EndpointError: The server does not answer, or gives no probabilities.
        """
