"""Check that the trainer's actual sampler reads the mix row by row.

Trainers gain samplers with each release (`group_by_length`, `batch_rebalance`, Axolotl's
`balance_labels`), and other plugins and subclasses bring their own. So the actual
sampler is checked, in addition to the settings that are refused by name.
"""

from __future__ import annotations

from typing import Any

from agenttuning_plugin.config.rules import SPLIT_BATCHES, splits_batches
from dataset_builders.errors import ConfigError


def check_row_order(trainer: Any) -> None:
    """Reject a trainer that would reorder, drop or repeat rows of a mix.

    Args:
        trainer: A `transformers.Trainer` with its training data.

    Raises:
        ConfigError: Its sampler is not the sequential one, or it splits each batch among
            its processes, so that a step has fewer rows than the mix was made for.
    """
    from torch.utils.data import IterableDataset, SequentialSampler

    if trainer.train_dataset is None or isinstance(trainer.train_dataset, IterableDataset):
        return  # An iterable is read in its own order.
    sampler = trainer._get_train_sampler()
    if type(sampler) is not SequentialSampler:
        strategy = getattr(trainer.args, "train_sampling_strategy", None)
        raise ConfigError(
            f"trainer: found {type(sampler).__name__} as the sampler of its training data "
            f"(train_sampling_strategy {strategy!r}), expected SequentialSampler: any other moves, "
            "drops or repeats rows of the mix; TRL: train_sampling_strategy='sequential'; Axolotl: "
            "remove the key that selects a sampler"
        )
    if splits_batches(getattr(trainer.args, "accelerator_config", None)):
        raise ConfigError(f"trainer: {SPLIT_BATCHES}")
