"""Mix prepared sources, and `build_mix`: from sources to a mixed dataset in one call."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from dataset_builders.encoding.lengths import LengthPolicy
from dataset_builders.errors import ConfigError
from dataset_builders.mixing.eta_schedule import Mode, QuotaStage
from dataset_builders.mixing.order import BLOCK, mix_datasets
from dataset_builders.mixing.planning import MixSchedule, Plan, make_order
from dataset_builders.mixing.pools import GPT4_SHARE
from dataset_builders.mixing.preparation import (
    EncodedSources,
    Encoding,
    check_settings,
    prepare,
    prepare_messages,
)
from dataset_builders.mixing.unit_conversion import Unit
from dataset_builders.sources.inputs import Source, source_weights

if TYPE_CHECKING:
    from datasets import Dataset

LOG = logging.getLogger(__name__)


def mix(
    prepared: EncodedSources, plan: Plan, *, seed: int, num_examples: int
) -> tuple[Dataset, MixSchedule]:
    """Mix prepared sources; rows are not copied.

    Raises:
        ConfigError: See `planning.make_order`.
    """
    planned = make_order(
        plan, prepared.agent_index, prepared.general_index, seed=seed, num_examples=num_examples
    )
    agent = prepared.agent if plan.needs_agent else None
    general = prepared.general if plan.needs_general else None
    return mix_datasets(agent, general, planned.order), planned


def build_mix(
    agent: Source | None,
    general: Source | None,
    *,
    eta: float | Sequence[tuple[int, float]] = 0.2,
    num_examples: int,
    seed: int = 0,
    eta_unit: Unit = "example",
    sampling: Mode = "stratified",
    task_weights: Mapping[str, float] | None = None,
    gpt4_share: float | None = GPT4_SHARE,
    block: int = BLOCK,
    tokenizer: Any = None,
    max_length: int | None = None,
    policy: LengthPolicy | None = None,
    end_of_turn: Iterable[str] = (),
) -> Dataset:
    """Mix agent and general data at ratio eta, ready for SFTTrainer or Axolotl.

    With a tokenizer, rows are `input_ids`, `labels` and `attention_mask`, each (T,), the
    loss covering exactly the turns marked as trained: both trainers use this directly.
    Without one, rows keep the `messages` shape with its flag per turn, which Axolotl
    reads through `message_field_training: train`; TRL ignores that flag, so give
    SFTTrainer tokens, and with them `dataset_kwargs={"skip_prepare_dataset": True}`, or it
    cuts rows at its own `max_length`. Keep the order: `train_sampling_strategy="sequential"`
    in TRL, `curriculum_sampling: true` in Axolotl (the plugin sets it).

    Args:
        agent: Agent data; None or empty only if eta is 0.
        general: General chat; None or empty only if eta is 1.
        eta: Probability in [0, 1] that an example is agent data (paper, section 2.3), or
            stages of it: pairs of a position and the share from there on.
        num_examples: Number of examples: steps times global batch size.
        seed: Any integer; the order is a pure function of it.
        eta_unit: What eta counts: examples as in the paper, tokens or trained tokens.
        sampling: "stratified", or "iid" for the paper's independent draws.
        task_weights: Weight of each task within the agent data, see `Plan`.
        gpt4_share: Share of GPT-4's conversations within the general data, see `Plan`.
        block: Global batch size; the agent share is held within each batch.
        tokenizer: A fast tokenizer with a chat template, or none.
        max_length: Longest row in tokens, by default the tokenizer's own limit.
        policy: What happens to longer ones, see `Encoder`; none: chat is split, agent
            data shortened. A log line counts them.
        end_of_turn: See `ChatRenderer`.

    Returns:
        A view of `num_examples` rows on the sources.

    Raises:
        ConfigError: A setting is out of range, a source that eta needs is missing, or the
            tokenizer cannot be used.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id does not exist.
    """
    plan = with_source_weights(
        Plan(
            eta=_eta(eta),
            unit=eta_unit,
            mode=sampling,
            task_weights=dict(task_weights or {}),
            gpt4_share=gpt4_share,
            block=block,
        ),
        agent,
        general,
    )
    check_settings(agent, general, plan, num_examples)
    if tokenizer is None:
        prepared = prepare_messages(agent, general, plan=plan)
    else:
        length = max_length or _length_limit(tokenizer)
        ends = (end_of_turn,) if isinstance(end_of_turn, str) else tuple(end_of_turn)
        encoding = Encoding(max_length=length, policy=policy, end_of_turn=ends)
        prepared = prepare(agent, general, plan=plan, tokenizer=tokenizer, encoding=encoding)
    rows, planned = mix(prepared, plan, seed=seed, num_examples=num_examples)
    for note in planned.notes:
        LOG.warning("%s", note)
    return rows


def with_source_weights(plan: Plan, agent: Source | None, general: Source | None) -> Plan:
    """Return the plan with the weights that its sources state.

    Raises:
        ConfigError: Only some of one side's sources have a weight.
    """
    return replace(
        plan,
        agent_weights=source_weights(agent, "agent") or plan.agent_weights,
        general_weights=source_weights(general, "general") or plan.general_weights,
    )


def _eta(eta: Any) -> float | tuple[QuotaStage, ...]:
    if isinstance(eta, Real) and not isinstance(eta, bool):
        return float(eta)
    try:
        if isinstance(eta, Sequence) and not isinstance(eta, str):
            return tuple(QuotaStage(int(start), float(share)) for start, share in eta)
    except (TypeError, ValueError):
        pass
    raise ConfigError(
        f"eta: found {eta!r:.60}, expected a number in [0, 1] or pairs of a position and one"
    )


def _length_limit(tokenizer: Any) -> int:
    limit = int(tokenizer.model_max_length)
    # Tokenizers without a limit state 10**30.
    if limit > 10**9:
        raise ConfigError("max_length: the tokenizer states no limit, so max_length must be set")
    return limit
