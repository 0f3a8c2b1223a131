"""The model to measure, and the ways of asking it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dataset_builders.conversation import Message

if TYPE_CHECKING:
    import torch

    from evaluators.in_step import InStep
    from evaluators.ranks import Ranks
    from evaluators.token_model import TokenModel


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
            room for one.

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


@dataclass(frozen=True, slots=True)
class Subject:
    """The model to measure and the process group it lives in.

    Attributes:
        model: The bare `PreTrainedModel` or `PeftModel`: not wrapped for distribution; None
            where a server is measured.
        tokenizer: Its fast tokenizer, with the chat template it is trained with.
        end_of_turn: Tokens beside eos that end a turn.
        rank: Number of this process.
        world_size: Number of processes; items are divided among them.
        gather: Joins the lists of all processes; every process has to call it.
        autocast: Makes the precision context that the trainer computes in.
        server: The model behind a server, in place of `model`.
        ranks: The processes, where there are several: `rank`, `world_size` and `gather` are
            theirs.
        in_step: How to call the model where its weights are spread over the processes: ask
            `tokens()` or `language_model()` there, and not `model`.
    """

    model: Any
    tokenizer: Any
    end_of_turn: tuple[str, ...] = ()
    rank: int = 0
    world_size: int = 1
    gather: Callable[[list[Any]], list[Any]] = field(default=lambda items: items)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    server: LanguageModel | None = None
    ranks: Ranks | None = None
    in_step: InStep | None = None

    @property
    def device(self) -> torch.device:
        """Where inputs have to be."""
        device: torch.device = self.model.device
        return device

    @property
    def has_weights(self) -> bool:
        """Whether the model itself is here."""
        return self.model is not None

    def tokens(self) -> TokenModel:
        """The model at the level of tokens; only where `has_weights`."""
        from evaluators.token_model import TokenModel

        if self.ranks is not None:
            from evaluators.in_step import RankTokenModel

            return RankTokenModel(self.model, self._pad_id(), self.ranks, self.in_step)
        return TokenModel(self.model, self._pad_id())

    def language_model(self, context_length: int | None = None) -> LanguageModel:
        """The model as one that answers.

        Args:
            context_length: Tokens of prompt and answer together; the model's by default.
        """
        if self.server is not None:
            return self.server
        from evaluators.local_model import LocalModel

        return LocalModel(self, context_length)

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)
