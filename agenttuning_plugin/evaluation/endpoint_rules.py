"""Rules on what can be evaluated on a server during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError

if TYPE_CHECKING:
    from transformers import Trainer


def lora_name(model: Any) -> str:
    """Return the name of the adapter in training.

    Raises:
        ConfigError: It is not a LoRA adapter, or one that vLLM cannot load.
    """
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, dict):
        raise ConfigError(
            "agenttuning.endpoint: found a full model, expected a LoRA adapter: a running "
            "server cannot replace its base weights; use agenttuning.evaluators"
        )
    name = str(model.active_adapter)
    kind = str(getattr(configs[name].peft_type, "value", configs[name].peft_type))
    if kind != "LORA":
        raise ConfigError(f"agenttuning.endpoint: found a {kind} adapter, expected LORA")
    for field in ("use_dora", "modules_to_save"):
        if getattr(configs[name], field, None):
            raise ConfigError(
                f"agenttuning.endpoint: found an adapter with {field}, which vLLM does not load; "
                "expected plain LoRA"
            )
    return name


def refuse_sharded(trainer: Trainer) -> None:
    """Reject a model of which no process has the whole adapter.

    Raises:
        ConfigError: It is sharded.
    """
    from accelerate.utils import DistributedType

    kind = trainer.accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ConfigError(
            f"agenttuning.endpoint: found a model sharded by {kind.value}, of which no process has "
            "the whole adapter; expected one process or DDP"
        )


def refuse_as_best(figure: str, prefix: str) -> None:
    """Reject figures that arrive too late for the trainer to select a checkpoint by.

    Args:
        figure: The trainer's `metric_for_best_model`.
        prefix: Prefix of such figures' names.

    Raises:
        ConfigError: It is such a figure.
    """
    if figure.removeprefix("eval_").startswith(prefix):
        raise ConfigError(
            f"metric_for_best_model: found {figure}, which comes from agenttuning.endpoint, after "
            "the trainer has chosen; expected a figure of agenttuning.evaluators"
        )


def has_evaluators(trainer: Trainer) -> bool:
    """Whether evaluators run in this training, too."""
    from evaluators.training.callback import EvaluatorCallback

    return any(isinstance(each, EvaluatorCallback) for each in trainer.callback_handler.callbacks)
