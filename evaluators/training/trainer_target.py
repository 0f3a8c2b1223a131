"""The trainer's model as an evaluation target, including DDP, FSDP and DeepSpeed."""

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
    """Return the model that a trainer trains; every process must call this.

    Call it after the trainer has prepared the model, that is, from `on_train_begin` on.

    Args:
        trainer: Any Hugging Face Trainer: on one process, under DDP, FSDP or DeepSpeed.
        end_of_turn: Additional end-of-turn tokens besides eos.
        timeout: Heartbeat timeout in seconds; a silent process is then considered dead.

    Raises:
        ConfigError: Several processes compute on one input (tensor or sequence parallelism), so
            that none can have its own; or the trainer has no tokenizer.
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
    """Return the trainer's tokenizer; for a processor, as of vision models, its tokenizer.

    Raises:
        ConfigError: The trainer was created without one.
    """
    from transformers import ProcessorMixin

    processing: Any = trainer.processing_class
    if processing is None:
        raise ConfigError(
            "evaluators: found a trainer without processing_class, expected the model's tokenizer: "
            "Trainer(..., processing_class=tokenizer)"
        )
    # Some tokenizers also have an inner `tokenizer`, which is not a transformers tokenizer.
    return processing.tokenizer if isinstance(processing, ProcessorMixin) else processing
