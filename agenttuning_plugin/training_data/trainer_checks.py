"""SFTConfig defaults that keep a mix's rows, and checks of the resulting trainer.

Each error is one line with the setting to change. Where possible, actual behaviour is checked: the
sampler, the columns kept, the dataset held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agenttuning_plugin.training_data.built_mix import BuiltMix
from agenttuning_plugin.training_data.collator import PackedCollator
from agenttuning_plugin.training_data.row_order import check_row_order
from agenttuning_plugin.training_data.settings import batch_of
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.planning import counts_of


def sft_defaults(*, packing: bool = False) -> dict[str, Any]:
    """Return arguments of TRL's SFTConfig that keep a `TrainingRun`'s rows and their order.

    Args:
        packing: Whether the run packs its rows.
    """
    found: dict[str, Any] = {
        "max_length": None,  # TRL before 1.8 cuts rows at 1,024 tokens whatever they are
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    # Packed rows are put together when they are read, from a column that no model takes.
    return found | ({"remove_unused_columns": False} if packing else {})


def check_trainer(trainer: Any, run: BuiltMix, steps: int) -> None:
    """Reject a trainer that would not train on a run's rows unchanged and in order.

    Args:
        trainer: A `transformers.Trainer`, such as TRL's SFTTrainer.
        run: The rows, and the batch that they were mixed for.
        steps: Optimizer steps that the run takes.

    Raises:
        ConfigError: It would shuffle, cut, prepare again, pack again or drop rows, split or
            rebalance batches, take others than the run's, or collate packed rows in another way.
    """
    check_row_order(trainer)
    for problem in _problems(trainer, run, steps):
        raise ConfigError(f"trainer: {problem}")


def _problems(trainer: Any, run: BuiltMix, steps: int) -> Iterator[str]:
    from agenttuning_plugin.training_data.loss_normalization import LossNormalization

    args = trainer.args
    if any(isinstance(each, LossNormalization) for each in trainer.callback_handler.callbacks):
        yield "found a LossNormalization, which attach adds: expected a trainer without"
    if getattr(args, "packing", False):
        yield "packing: found true, expected false: TrainingRun(packing=True) packs the rows"
    longest = longest_row(run)
    limit = getattr(args, "max_length", None)
    if limit is not None and limit < longest:
        yield (
            f"max_length: found {limit}, expected none: it would cut rows of up to {longest} "
            "tokens; sft_defaults() sets it"
        )
    prepares = not (getattr(args, "dataset_kwargs", None) or {}).get("skip_prepare_dataset")
    if hasattr(args, "dataset_kwargs") and prepares:
        yield (
            "dataset_kwargs: found no skip_prepare_dataset, expected true: the rows would be "
            "prepared again; sft_defaults() sets it"
        )
    if trainer.train_dataset is not run.train_dataset:
        yield "train_dataset: found another dataset, expected the run's train_dataset as it is"
    if missing := _needed(run) - _kept(trainer):
        yield (
            f"remove_unused_columns: found true, which drops {', '.join(sorted(missing))}, "
            "expected false; sft_defaults(packing=...) sets it"
        )
    collator = trainer.data_collator
    if run.packing and not isinstance(collator, PackedCollator):
        yield (
            f"data_collator: found {type(collator).__name__}, expected the run's data_collator: "
            "another one would let documents of a packed row see each other"
        )
    if batch_of(args) != run.batch:
        yield f"found batches of {batch_of(args)}, expected {run.batch}, which rows were mixed for"
    if args.max_steps != steps:
        yield f"max_steps: found {args.max_steps}, expected {steps}, which rows were mixed for"


def longest_row(run: BuiltMix) -> int:
    """Return the tokens of the longest row of a run; of packed rows, their length."""
    if run.packing:
        return run.packing.capacity
    order, prepared = run.planned.order, run.prepared
    agent = prepared.agent_index if order.num_agent else None
    general = prepared.general_index if order.num_general else None
    return int(counts_of(agent, general, "tokens").max())


def _needed(run: BuiltMix) -> set[str]:
    return set(run.train_dataset.column_names if run.packing else ("input_ids", "labels"))


def _kept(trainer: Any) -> set[str]:
    """Return the columns that the trainer's dataloader reads."""
    columns = set(trainer.train_dataset.column_names)
    if trainer.args.remove_unused_columns:
        trainer._set_signature_columns_if_needed()
        columns &= set(trainer._signature_columns)
    return columns
