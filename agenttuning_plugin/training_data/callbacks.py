"""Trainer callbacks of a run: packing check, losses, evaluators, model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agenttuning_plugin.config.recipe import AgentTuningSection

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback

    from agenttuning_plugin.config.evaluation import AgentLossConfig
    from agenttuning_plugin.training_data.built_mix import BuiltMix
    from evaluators.tasks.agent_loss import AgentLossEvaluator


def make_callbacks(
    section: AgentTuningSection,
    trainer: Trainer,
    *,
    holdout: Dataset | None,
    packed: bool,
    end_of_turn: Sequence[str] = (),
    recipe: str = "",
    mix: BuiltMix | None = None,
) -> list[TrainerCallback]:
    """Create a section's callbacks for a trainer, in the order in which they must run.

    Args:
        section: The recipe's section.
        trainer: The trainer, with its model and tokenizer.
        holdout: Rows that `general_loss` is measured on, or none.
        packed: Whether rows are packed.
        end_of_turn: Tokens beside eos that end a turn.
        recipe: Path of the Axolotl recipe, for the model card; none with another trainer.
        mix: The rows, for the loss by source; none if they are not known in this process.

    Raises:
        AgentTuningError: The trainer cannot normalize its loss as the section says, or an
            evaluator cannot be made.
    """
    from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback
    from agenttuning_plugin.evaluation.from_config import schedules
    from agenttuning_plugin.training_data.loss_normalization import LossNormalization
    from agenttuning_plugin.training_data.model_record import ModelRecord
    from agenttuning_plugin.training_data.overfitting import OverfitWatch
    from agenttuning_plugin.training_data.packing_check import PackingCheck
    from agenttuning_plugin.training_data.source_loss import SourceLoss
    from agenttuning_plugin.training_data.source_loss_groups import TokenGroups, task_name
    from dataset_builders.errors import ConfigError
    from evaluators.tasks.agent_loss import AgentLossEvaluator
    from evaluators.training.callback import EvaluatorCallback

    made: list[TrainerCallback] = [PackingCheck()] if packed else []
    made.append(LossNormalization(trainer, section.loss_normalization))
    losses = None
    if section.log_loss_by_source and mix is not None and mix.batch is not None:
        losses = SourceLoss(trainer, TokenGroups(mix), mix.batch)
        made.append(losses)

    def agent_loss(config: AgentLossConfig) -> AgentLossEvaluator:
        rows = None if mix is None else mix.prepared.agent_holdout
        index = None if mix is None else mix.prepared.agent_holdout_index
        if rows is None or index is None:
            raise ConfigError("evaluators: agent_loss has no held-out conversation")
        watch = OverfitWatch(trainer, config.patience, config.key, losses)
        made.append(watch)
        tasks = [task_name(task) for task in index["task"].to_pylist()]
        return AgentLossEvaluator(rows, tasks, config.key, watch)

    # The server's prompts are compared first: that takes no time.
    variables, server = section.chat_template_kwargs, section.endpoint
    beside = [EndpointCallback(trainer, server, end_of_turn, variables)] if server else []
    if section.evaluators:
        found, unavailable = schedules(section, holdout, agent_loss)
        policy = section.evaluation
        made.append(EvaluatorCallback(trainer, found, end_of_turn, policy, unavailable))
    # Last, for a card with all figures.
    return [*made, *beside, ModelRecord(trainer, section, end_of_turn, recipe)]
