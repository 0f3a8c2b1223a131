"""Per-token losses of a trainer's own forward pass, without a second one.

Where a loss is computed from logits, it is torch's cross-entropy: a log-softmax, then the negative
log-likelihood. Both are intercepted while a trainer computes its loss. Cross-entropy is split into
these two steps, which is what torch itself does, so that the loss and its gradient keep every bit;
a token's loss is then one number of the log-softmax. The intercepted paths:

- transformers' `ForCausalLMLoss`, and so Axolotl and TRL's `loss_type: nll`: `cross_entropy`;
- TRL 1.9 to 1.14, `chunked_nll`: `nll_loss` of each chunk of trained tokens;
- TRL 1.16: `log_probs` of the model's output;
- dynamic fine-tuning (DFT): `log_probs` likewise, or the logits that its function is given.

A fused kernel (Liger, cut cross-entropy) computes no log-softmax; nothing is captured of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as functional

from dataset_builders.encoding.token_rows import IGNORE_INDEX

if TYPE_CHECKING:
    from torch import Tensor

_CROSS_ENTROPY, _NLL_LOSS = functional.cross_entropy, functional.nll_loss


class TokenLosses(NamedTuple):
    """Losses of consecutive targets, in the order of the batch.

    Attributes:
        losses: (N,), of each target, in nats.
        trained: (N,) bool, whether the target is trained.
    """

    losses: Tensor
    trained: Tensor


class LossCapture:
    """Captures per-token losses of a model.

    Args:
        model: The model, not wrapped for distributed training.
        dft: Whether the trainer weights each token's loss by its probability.
    """

    def __init__(self, model: Any, dft: bool = False) -> None:
        self._found: list[TokenLosses] | None = None
        self._dft = dft
        self._handle = model.register_forward_hook(self._read_output)

    def remove(self) -> None:
        """Remove the hook from the model."""
        self._handle.remove()

    @contextmanager
    def __call__(self) -> Iterator[list[TokenLosses]]:
        """Capture what is computed inside; empty if the loss is not computed in a known way."""
        found: list[TokenLosses] = []
        self._found = found
        before = functional.cross_entropy, functional.nll_loss
        if before == (_CROSS_ENTROPY, _NLL_LOSS):  # not replaced by a kernel
            functional.cross_entropy = self._cross_entropy
            functional.nll_loss = self._nll_loss
        try:
            yield found
        finally:
            functional.cross_entropy, functional.nll_loss = before
            self._found = None

    def _cross_entropy(self, input: Tensor, target: Tensor, *args: Any, **options: Any) -> Tensor:
        # Under autocast the two steps choose the type of half-precision scores differently.
        off = input.dtype in (torch.float32, torch.float64)
        off = off and options.get("weight") is None and not options.get("label_smoothing")
        used = {key: options[key] for key in ("ignore_index", "reduction") if key in options}
        known = set(options) <= {*used, "weight", "label_smoothing"} and not args
        if not off or not known or not _is_flat(input, target):
            return _CROSS_ENTROPY(input, target, *args, **options)
        return self._nll_loss(functional.log_softmax(input, dim=1), target, **used)

    def _nll_loss(self, input: Tensor, target: Tensor, *args: Any, **options: Any) -> Tensor:
        ignored = options.get("ignore_index", IGNORE_INDEX)
        plain = not args and set(options) <= {"ignore_index", "reduction"}
        if self._found is not None and plain and _is_flat(input, target):
            with torch.no_grad():
                trained = target != ignored
                index = target.where(trained, 0)[:, None]
                losses = -input.detach().gather(1, index)[:, 0]
            self._found.append(TokenLosses(losses, trained))
        return _NLL_LOSS(input, target, *args, **options)

    def _read_output(self, model: Any, args: Any, output: Any) -> None:
        losses = getattr(output, "log_probs", None)
        mask = getattr(output, "label_mask", None)
        if self._found is not None and losses is not None and mask is not None:
            losses = losses.detach().reshape(-1)
            weights = losses.exp() if self._dft else 1.0
            self._found[:] = [TokenLosses(-losses * weights, mask.reshape(-1))]

    def loss_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a trainer's DFT function that also captures the losses of its tokens."""

        def capturing(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Any:
            if self._found is not None:
                self._found[:] = [dft_losses(outputs.logits, labels)]
            return function(outputs, labels, num_items_in_batch=num_items_in_batch)

        return capturing


def is_dft(trainer: Any) -> bool:
    """Whether a trainer's loss is that of dynamic fine-tuning: TRL's or Axolotl's."""
    name = getattr(trainer.compute_loss_func, "__name__", "")
    return name == "dft_loss" or getattr(trainer.args, "loss_type", None) == "dft"


def dft_losses(logits: Tensor, labels: Tensor) -> TokenLosses:
    """Return the DFT losses -p log p of trained tokens (arXiv 2508.05629, equation 9).

    Args:
        logits: (B, L, V).
        labels: (B, L), not shifted.
    """
    with torch.no_grad():
        targets = labels[:, 1:].reshape(-1).to(logits.device)
        trained = targets != IGNORE_INDEX
        chosen = logits[:, :-1].reshape(-1, logits.shape[-1])[trained].float().log_softmax(1)
        losses = chosen.gather(1, targets[trained][:, None])[:, 0]
        return TokenLosses(-losses.exp() * losses, torch.ones_like(losses, dtype=torch.bool))


def _is_flat(input: Tensor, target: Tensor) -> bool:
    """Whether these are class scores, (N, V), and numbers of classes, (N,), outside of a graph."""
    return (
        not torch.compiler.is_compiling()
        and input.dim() == 2
        and target.dim() == 1
        and not target.is_floating_point()
    )


def sum_by_cell(
    found: list[TokenLosses], targets: Tensor, cells: Tensor, num_cells: int
) -> tuple[Tensor, Tensor]:
    """Sum captured losses by cell.

    The order of trained targets is that of the batch on every path, whether or not untrained ones
    are left out, so the k-th captured trained target is the k-th of the batch.

    Args:
        found: Captured losses.
        targets: (M,) bool, whether each target of the batch is trained, on the losses' device.
        cells: (M,) int64, the cell of each target.
        num_cells: Number of cells.

    Returns:
        Sum of losses and number of trained targets, each (num_cells,), float64 where there is.
    """
    losses = torch.cat([each.losses for each in found])
    trained = torch.cat([each.trained for each in found])
    first = targets.to(torch.int8).argsort(descending=True, stable=True)
    number = (trained.cumsum(0) - 1).clamp(min=0, max=len(first) - 1)
    cell = cells[first][number]
    dtype = torch.float32 if losses.device.type == "mps" else torch.float64
    sums, counts = torch.zeros((2, num_cells), dtype=dtype, device=losses.device)
    sums.index_add_(0, cell, losses.to(dtype).where(trained, 0))
    counts.index_add_(0, cell, trained.to(dtype))
    return sums, counts
