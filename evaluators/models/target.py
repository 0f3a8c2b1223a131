"""Evaluation target: the model and its process group."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluators.models.interface import Decoding, LanguageModel

if TYPE_CHECKING:
    import torch

    from evaluators.distributed.process_group import ProcessGroup
    from evaluators.models.sharded import ShardedForward
    from evaluators.models.token_model import TokenModel

__all__ = ["Decoding", "EvalTarget", "LanguageModel"]


@dataclass(frozen=True, slots=True)
class EvalTarget:
    """The model under evaluation and its process group.

    Attributes:
        model: The bare `PreTrainedModel` or `PeftModel`, not wrapped for distribution; None for a
            server.
        tokenizer: Its fast tokenizer, with the chat template of training.
        end_of_turn: Additional end-of-turn tokens besides eos.
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
    ranks: ProcessGroup | None = None
    in_step: ShardedForward | None = None

    @property
    def device(self) -> torch.device:
        """Device of inputs."""
        device: torch.device = self.model.device
        return device

    @property
    def has_weights(self) -> bool:
        """Whether the model itself is available."""
        return self.model is not None

    def tokens(self, *, reuse: bool = True) -> TokenModel:
        """Return the token-level model; only if `has_weights`.

        Args:
            reuse: Whether to cache prefixes between calls; see `TokenModel`.
        """
        from evaluators.models.token_model import TokenModel

        if self.ranks is not None:
            from evaluators.models.sharded import RankTokenModel

            return RankTokenModel(self.model, self._pad_id(), self.ranks, self.in_step, reuse=reuse)
        return TokenModel(self.model, self._pad_id(), reuse=reuse)

    def language_model(self, context_length: int | None = None) -> LanguageModel:
        """Return the model as a `LanguageModel`.

        Args:
            context_length: Tokens of prompt and answer together; the model's by default.
        """
        if self.server is not None:
            # Its refusals are counted by task, and its server keeps no limit but its own.
            for_task = getattr(self.server, "for_task", None)
            model: LanguageModel = for_task(context_length) if for_task else self.server
            return model
        from evaluators.models.chat_model import LocalModel

        return LocalModel(self.tokens(), self.tokenizer, self.end_of_turn, context_length)

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)
