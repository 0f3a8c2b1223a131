"""Evaluators of `agenttuning evaluate` that need conversations: loss and replay."""

from __future__ import annotations

from collections.abc import Sequence

from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.holdout import split_holdout
from dataset_builders.mixing.preparation import LENGTH_DEFAULTS
from dataset_builders.sources.inputs import resolve_evaluation_source, resolve_source
from dataset_builders.sources.loading import load_source
from evaluators.evaluator import EvalTarget, Evaluator
from evaluators.tasks.general_loss import GeneralLossEvaluator


def loss_evaluator(
    general: str, subject: EvalTarget, num_conversations: int, max_length: int
) -> GeneralLossEvaluator:
    """Create the evaluator of the loss on held-out chat.

    Args:
        general: Source of chat.
        subject: The model, whose tokenizer encodes it.
        num_conversations: Number of conversations, selected as in training: the same ones, if
            number, length and chat template are the recipe's.
        max_length: Maximum tokens of a conversation.

    Raises:
        DataError: The chat cannot be read.
        SourceNotFoundError: There is no such chat.
        ConfigError: The model is behind a server.
    """
    if not subject.has_weights:
        raise ConfigError("loss: needs the model's weights, not a server's answers")
    conversations = load_source(resolve_source(general)).conversations
    encoder = Encoder(
        subject.tokenizer,
        max_length=max_length,
        policy=LENGTH_DEFAULTS["general"],
        end_of_turn=subject.end_of_turn,
        rows="auto",
    )
    made = encode_dataset(conversations, encoder, what=general)
    _, held_out = split_holdout(made.dataset, made.index, num_conversations)
    return GeneralLossEvaluator(made.dataset.select(held_out))


def replay_evaluator(
    data: str, subject: EvalTarget, max_length: int, environments: Sequence[EnvironmentSpec] = ()
) -> Evaluator:
    """Create the replay evaluator on expert trajectories.

    Args:
        data: Source of trajectories.
        subject: The model, whose tokenizer encodes them.
        max_length: Maximum tokens of a trajectory.
        environments: Own environments that the trajectories may be of.

    Raises:
        DataError: They cannot be read.
        SourceNotFoundError: There are none.
    """
    from evaluators.tasks.replay import ReplayEvaluator

    read = load_source(resolve_evaluation_source(data)).conversations
    return ReplayEvaluator(read, max_length=max_length, environments=environments)
