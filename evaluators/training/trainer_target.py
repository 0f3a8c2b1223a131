"""The model of a trainer as what is measured, whatever the trainer spreads over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError
from evaluators.distributed.process_group import DEFAULT_TIMEOUT, ranks_here
from evaluators.models.sharded import ShardedForward, sharded_module
from evaluators.models.target import EvalTarget

if TYPE_CHECKING:
    from transformers import Trainer


def subject_of(
    trainer: Trainer, end_of_turn: Sequence[str] = (), *, timeout: float = DEFAULT_TIMEOUT
) -> EvalTarget:
    """The model that a trainer trains; every process has to ask for it.

    Ask when the trainer has prepared the model, that is, from `on_train_begin` on.

    Args:
        trainer: Any Hugging Face Trainer: on one process, under DDP, FSDP or DeepSpeed.
        end_of_turn: Tokens beside eos that end a turn.
        timeout: Seconds without a sign of life after which a process is given up.

    Raises:
        ConfigError: Processes compute on one input together, so that none can have its own; or
            the trainer has no tokenizer.
    """
    accelerator = trainer.accelerator
    parallel = getattr(accelerator, "parallelism_config", None)
    for kind in ("tp", "cp", "sp"):
        if getattr(parallel, f"{kind}_enabled", False):
            raise ConfigError(
                f"evaluators: found parallelism {kind}, expected data parallelism, sharded or not: "
                "processes that share one input cannot play tasks of their own"
            )
    model = accelerator.unwrap_model(trainer.model)
    ranks = ranks_here(timeout)
    if ranks is None:
        return EvalTarget(
            model=model,
            tokenizer=tokenizer_of(trainer),
            end_of_turn=tuple(end_of_turn),
            autocast=accelerator.autocast,
        )
    module = sharded_module(trainer.model_wrapped, model)
    return EvalTarget(
        model=model,
        tokenizer=tokenizer_of(trainer),
        end_of_turn=tuple(end_of_turn),
        rank=ranks.rank,
        world_size=ranks.size,
        gather=ranks.gather,
        autocast=accelerator.autocast,
        ranks=ranks,
        in_step=None if module is None else ShardedForward(module, ranks),
    )


def tokenizer_of(trainer: Trainer) -> Any:
    """The trainer's tokenizer; of a processor, as for models that see images, its own.

    Raises:
        ConfigError: The trainer was made without one.
    """
    from transformers import ProcessorMixin

    processing: Any = trainer.processing_class
    if processing is None:
        raise ConfigError(
            "evaluators: found a trainer without processing_class, expected the model's tokenizer: "
            "Trainer(..., processing_class=tokenizer)"
        )
    # Some tokenizers have a `tokenizer` inside, too, which is none of transformers'.
    return processing.tokenizer if isinstance(processing, ProcessorMixin) else processing
