"""Forward passes of a model sharded over processes, in which all processes must join."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from dataset_builders.errors import ClusterError
from evaluators.distributed.process_group import ProcessGroup
from evaluators.models.token_model import TokenModel


class ShardedForward:
    """Calls a sharded model on all processes in lockstep, with individual inputs.

    A forward pass gathers the weights of every block from all processes (FSDP, ZeRO-3), so
    one that is called on some of them waits for ever. Before each call the processes exchange
    whether they need one. Those that do call the model with their own inputs; the number of calls
    may differ. Those that are finished, or failed, are in `drain`, and join with a single token
    until no process needs a call any more.

    Args:
        module: The model as it has to be called: FSDP's own wrapper where there is one.
        ranks: The processes that share it.

    Attributes:
        module: See above.
    """

    def __init__(self, module: Any, ranks: ProcessGroup) -> None:
        self.module = module
        self._ranks = ranks
        self._broken: ClusterError | None = None
        self._lock = threading.Lock()

    def __call__(self, **arguments: Any) -> Any:
        """Call the model with inputs of this process.

        Raises:
            ClusterError: The call failed; other processes wait inside theirs.
        """
        with self._lock:  # Two threads would gather the weights of different blocks.
            self._ranks.any(True)
            return self._call(arguments)

    def drain(self) -> None:
        """Join other processes' calls until none is needed; then free gathered weights.

        Raises:
            ClusterError: A call failed here before, even if its error was suppressed.
        """
        if self._broken is not None:
            raise self._broken
        with self._lock:
            while self._ranks.any(False):
                self._call(self._single_token())
        _reshard(self.module)

    def _call(self, arguments: dict[str, Any]) -> Any:
        self._ranks.watchdog.ping()
        try:
            return self.module(**arguments)
        except Exception as error:
            # Which of the pass's collectives others are in is not known, so this process
            # cannot join them, and has to end.
            self._broken = ClusterError(
                f"{self._ranks.watchdog.evaluator}: process {self._ranks.rank} failed inside a "
                "call of the sharded model, where the others cannot be notified: "
                f"{type(error).__name__}: {error}"
            )
            raise self._broken from error

    def _single_token(self) -> dict[str, Any]:
        import torch

        ids = torch.zeros((1, 1), dtype=torch.long, device=next(self.module.parameters()).device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


class RankTokenModel(TokenModel):
    """A model in one of several processes, with a heartbeat per call.

    Args:
        model: The bare model.
        pad_id: Token to fill batches with.
        ranks: The processes.
        in_step: Calls the model if it is sharded.
    """

    def __init__(
        self,
        model: Any,
        pad_id: int,
        ranks: ProcessGroup,
        in_step: ShardedForward | None,
        *,
        reuse: bool = True,
    ) -> None:
        super().__init__(model, pad_id, reuse=reuse)
        self._ranks = ranks
        self._in_step = in_step

    def _forward(self, **arguments: Any) -> Any:
        self._ranks.watchdog.ping()
        if self._in_step is None:
            return super()._forward(**arguments)
        return self._in_step(**arguments)


def sharded_module(wrapped: Any, bare: Any) -> Any:
    """Return the module to call on all processes in lockstep; None if the model is not sharded.

    Args:
        wrapped: The outermost module, such as `trainer.model_wrapped`.
        bare: The model itself.

    Returns:
        Under FSDP, of either version, `wrapped`; under ZeRO-3 `bare`, whose hooks do the
        gathering while the engine's `forward` counts the steps of training.
    """
    import torch.distributed as dist

    if not dist.is_available():
        return None
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    if any(isinstance(m, FSDPModule | FullyShardedDataParallel) for m in wrapped.modules()):
        return wrapped
    if any(hasattr(parameter, "ds_id") for parameter in bare.parameters()):
        return bare
    return None


def _reshard(module: Any) -> None:
    """Free the root's weights, which FSDP 2 leaves gathered after a pass without gradients."""
    from torch.distributed.fsdp import FSDPModule

    parts: list[Callable[[], None]] = [
        part.reshard for part in module.modules() if isinstance(part, FSDPModule)
    ]
    for reshard in parts:
        reshard()
