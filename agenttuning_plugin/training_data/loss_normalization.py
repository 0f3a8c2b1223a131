"""Loss normalization: one divisor of a step's loss for every trainer and version.

The paper minimises eta * E_agent[log p(y|x)] + (1 - eta) * E_general[log p(y|x)] (section 2.3),
where log p(y|x) is a sum over the tokens of an answer; it draws by eta and weighs nothing. Trainers
do not sum, they divide, and not by the same number: TRL and Axolotl from 0.20 on by the trained
tokens of the whole global batch; Axolotl 0.19 by those of each micro-batch, whose means it then
averages, so that a micro-batch with few trained tokens, such as agent data, counts as much as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from transformers import TrainerCallback

from agenttuning_plugin.training_data.collator import PackedCollator
from dataset_builders.errors import ConfigError
from evaluators.models.compiled import original, uncompiled
from evaluators.models.four_bit import keep_trainable

if TYPE_CHECKING:
    from transformers import Trainer

Normalization = Literal["tokens", "examples"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)

_COUNTS = (4.0, 8.0, 16.0)  # numbers of tokens passed to a model


class LossNormalization(TrainerCallback):
    """Callback that normalises each step's loss by one rule; see docs/concepts/mixing.md.

    "tokens": the loss of all trained tokens of the global batch, divided by their number, over
    micro-batches, accumulation steps and processes. It weighs the sides of a batch as the paper's
    sum does. "examples": the mean over a global batch's examples of each one's mean per trained
    token, which reads the paper's expectation as one over examples of equal weight: eta is then
    the share of the loss. Trainers compute it only with one example in each micro-batch.

    Only the trainer's own switches are set; the loss is not recomputed.

    Attributes:
        normalization: The rule.

    Args:
        trainer: Any Hugging Face Trainer, such as TRL's or Axolotl's.
        kind: See above.

    Raises:
        ConfigError: There is no such rule, or the trainer's batches do not allow for it.
    """

    def __init__(self, trainer: Trainer, kind: Normalization = "tokens") -> None:
        if kind not in NORMALIZATIONS:
            names = ", ".join(NORMALIZATIONS)
            raise ConfigError(f"loss_normalization: found {kind!r}, expected one of {names}")
        self._trainer: Any = trainer
        self.normalization = kind
        if kind == "examples":
            self._check_single()

    @classmethod
    def install(cls, trainer: Trainer, kind: Normalization = "tokens") -> LossNormalization:
        """Create a callback and add it to the trainer, replacing an existing one.

        Raises:
            ConfigError: See the class.
        """
        callback = cls(trainer, kind)
        trainer.remove_callback(cls)
        trainer.add_callback(callback)
        return callback

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Set the trainer's switches, before it counts the tokens of the first batch.

        Raises:
            ConfigError: The model's loss cannot be divided by this rule.
        """
        trainer = self._trainer
        if self.normalization == "examples":
            self._check_single()  # A search for the batch size may have changed it.
            trainer.model_accepts_loss_kwargs = False
            return
        if trainer.compute_loss_func is None and not divides_by_count(rest["model"]):
            self._check_one_micro_batch(type(original(rest["model"])).__name__)
            trainer.model_accepts_loss_kwargs = False
            return
        trainer.model_accepts_loss_kwargs = True
        # Axolotl turns it off; a process's own count would then be the divisor.
        trainer.args.average_tokens_across_devices = True

    def _check_single(self) -> None:
        trainer = self._trainer
        packed = isinstance(trainer.data_collator, PackedCollator) or any(
            getattr(trainer.args, name, False) for name in ("packing", "padding_free")
        )
        size = trainer.args.train_batch_size
        if packed or size != 1 or trainer.compute_loss_func is not None:
            found = "packed rows" if packed else f"micro-batches of {size}"
            if not packed and size == 1:
                raise ConfigError(
                    "loss_normalization: examples: found a loss function of the trainer's own, "
                    "such as dft, expected loss_normalization: tokens: the trainer does not "
                    "average it over micro-batches"
                )
            raise ConfigError(
                f"loss_normalization: examples: found {found}, expected one example in each "
                "micro-batch: trainers average over a micro-batch's tokens, not its examples"
            )

    def _check_one_micro_batch(self, name: str) -> None:
        args = self._trainer.args
        steps, world = args.gradient_accumulation_steps, args.world_size
        if steps * world > 1:
            raise ConfigError(
                f"loss_normalization: tokens: the loss of {name} takes no num_items_in_batch, so "
                f"{steps} micro-batches of {world} processes would be averaged regardless of "
                "their tokens; expected one micro-batch a step, or loss_normalization: examples"
            )


def divides_by_count(model: Any) -> bool:
    """Whether a model divides its loss by the number of tokens passed to it.

    Tested on eight tokens: the signature of a forward is inconclusive, as it accepts any argument.
    """
    import torch

    device = next(model.parameters()).device
    ids = torch.arange(1, 9, device=device)[None]
    modes = [(module, module.training) for module in model.modules()]
    keep_trainable(model)
    try:
        model.eval()
        with uncompiled(model), torch.no_grad():
            losses = [
                float(
                    model(
                        input_ids=ids,
                        attention_mask=torch.ones_like(ids),
                        labels=ids,
                        use_cache=False,
                        num_items_in_batch=torch.tensor(count, device=device),
                    ).loss
                )
                for count in _COUNTS
            ]
    except TypeError:  # An argument that it does not know.
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    # Other terms, such as that of a router, cancel out.
    first, second = losses[0] - losses[1], losses[1] - losses[2]
    return first > 0 and abs(first - 2 * second) < 0.1 * first
