"""Interface of a model under evaluation, local or served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dataset_builders.conversation import Message


@dataclass(frozen=True, slots=True)
class Decoding:
    """Decoding settings of an answer.

    Attributes:
        max_new_tokens: Maximum tokens of an answer.
        temperature: Sampling temperature; 0 for greedy decoding.
        top_p: Nucleus sampling threshold.
        stop: Stop sequences; not part of the answer.
        seed: Sampling seed, so that an answer does not depend on its batch.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


class Values(tuple[float, ...]):
    """Log-probabilities in nats, one per candidate.

    Attributes:
        refused: Why the server rejected the request; "" if it did not. There are then no values.
        prompt_tokens: Tokens of the prompt; 0 if a server does not report it.
    """

    refused: str
    prompt_tokens: int

    def __new__(
        cls, values: Iterable[float] = (), *, refused: str = "", prompt_tokens: int = 0
    ) -> Values:
        """Make them."""
        made = super().__new__(cls, values)
        made.refused, made.prompt_tokens = refused, prompt_tokens
        return made


class LanguageModel(Protocol):
    """A model that answers: in this process or behind a server."""

    def chat(
        self,
        dialogues: Sequence[Sequence[Message]],
        decoding: Decoding,
        tools: Sequence[str] | None = None,
    ) -> list[str | None]:
        """Generate the next assistant turn of every dialogue.

        Args:
            dialogues: Messages so far of each, the last one not the model's.
            decoding: How.
            tools: For each dialogue JSON text of the tools that the model may call, in the OpenAI
                format, or "" for none; None if no dialogue offers tools.

        Returns:
            One turn per dialogue, blanks around it removed; None where the context has no
            room for one. An `Answer` says more: what the model thought, which is no part of
            the text, whether the turn was cut at the token limit, its tool calls, and whether a
            server refused the request.

        Raises:
            EndpointError: The server does not answer.
        """

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """Continue plain texts, without a chat template; otherwise as `chat`.

        Raises:
            EndpointError: The server does not answer, or knows no such route.
        """

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[Values | None]:
        """Return the log-probability that the next turn begins with a token for each text.

        Which token that is depends on the context: after a line break SentencePiece writes
        "A" by another token than after a word. So all tokens that write the candidate, with
        or without blanks before it, count together.

        Args:
            dialogues: As for `chat`.
            candidates: Texts that a single token can write, such as "A".

        Returns:
            For every dialogue one value per candidate, in nats, -inf where a server does
            not tell; None where the context has no room.

        Raises:
            ConfigError: No single token writes a candidate.
            EndpointError: The server does not answer, or gives no probabilities.
        """
