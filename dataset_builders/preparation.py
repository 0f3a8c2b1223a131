"""Sources to rows: read, encode, hold general chat out for measuring, and mix.

`build_mix` is the whole way in one call. A trainer adapter takes the two halves apart,
so that the costly one, `prepare`, can be cached.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dataset_builders.errors import ConfigError
from dataset_builders.holdout import split_holdout
from dataset_builders.mixing import BLOCK, MixOrder, mix_datasets
from dataset_builders.planning import Plan, Planned, make_order
from dataset_builders.pools import GPT4_SHARE
from dataset_builders.rates import Unit
from dataset_builders.reading import Progress, Source, is_empty, read_source, source_weights
from dataset_builders.report import SourceReport
from dataset_builders.rows import index_of
from dataset_builders.sources import to_dataset
from dataset_builders.splitting import Mode, Stage
from dataset_builders.tokens import Encoder, LengthPolicy, encode_dataset

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoding:
    """Settings that decide what the rows of a source are.

    Attributes:
        max_length: Longest row in tokens.
        policy: What happens to longer ones, see `Encoder`.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.
        holdout: General conversations kept out of training to measure the loss on.
    """

    max_length: int
    policy: LengthPolicy = "drop"
    end_of_turn: tuple[str, ...] = ()
    holdout: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Encoded sources.

    Attributes:
        agent: Agent rows, or none if the mix needs none.
        general: General rows without those held out, or none.
        holdout: General rows held out, or none.
        agent_index: Where each agent row came from, see `rows.INDEX`.
        general_index: The same of the general rows.
        report: What became of every record and conversation, JSON-ready.
    """

    agent: Dataset | None
    general: Dataset | None
    holdout: Dataset | None
    agent_index: pa.Table | None = None
    general_index: pa.Table | None = None
    report: dict[str, Any] = field(default_factory=dict)


def prepare(
    agent: Source | None,
    general: Source | None,
    *,
    plan: Plan,
    tokenizer: Any,
    encoding: Encoding,
    on_progress: Progress | None = None,
) -> Prepared:
    """Read and encode the sources that a mix of this plan needs.

    General data is also read at eta 1 if conversations of it are to be held out; its rows
    are then in the result too, which so serves every eta above 0.

    Raises:
        ConfigError: A setting is out of range, a source that eta needs is missing, or the
            tokenizer cannot be used.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_sources(agent, general, plan)
    encoder = Encoder(
        tokenizer,
        max_length=encoding.max_length,
        policy=encoding.policy,
        end_of_turn=encoding.end_of_turn,
    )
    report: dict[str, Any] = {}
    agent_rows = general_rows = holdout = agent_index = general_index = None
    if plan.needs_agent:
        agent_rows, agent_index = _encode(agent, "agent", encoder, encoding, report, on_progress)
    if not is_empty(general) and (plan.needs_general or encoding.holdout):
        rows, index = _encode(general, "general", encoder, encoding, report, on_progress)
        kept, held = split_holdout(rows, encoding.holdout)
        general_rows, general_index = rows.select(kept), index.take(kept)
        if len(held):
            holdout = rows.select(held)
            report["holdout"] = {"rows": len(holdout)}
    return Prepared(agent_rows, general_rows, holdout, agent_index, general_index, report)


def prepare_messages(agent: Source | None, general: Source | None, *, plan: Plan) -> Prepared:
    """Read the sources that a mix of this plan needs, without encoding them.

    Raises:
        ConfigError: eta is outside of [0, 1], or a source that it needs is missing.
        DataError: A source cannot be read, or no record of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_sources(agent, general, plan)
    report: dict[str, Any] = {}
    agent_rows = _messages(agent, "agent", report) if plan.needs_agent else None
    general_rows = _messages(general, "general", report) if plan.needs_general else None
    return Prepared(
        agent=agent_rows,
        general=general_rows,
        holdout=None,
        agent_index=None if agent_rows is None else index_of(agent_rows),
        general_index=None if general_rows is None else index_of(general_rows),
        report=report,
    )


def check_sources(agent: Source | None, general: Source | None, plan: Plan) -> None:
    """Tell at once, before anything is read, that a source is missing.

    Raises:
        ConfigError: eta is outside of [0, 1], or a source that it needs is missing.
    """
    MixOrder(int(not is_empty(agent)), int(not is_empty(general)), plan.eta, 0, 1, plan.block)


def mix(prepared: Prepared, plan: Plan, *, seed: int, num_examples: int) -> tuple[Dataset, Planned]:
    """Mix prepared sources; the rows are a view.

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
    end_of_turn: Iterable[str] = (),
) -> Dataset:
    """Mix agent and general data at ratio eta, ready for SFTTrainer or Axolotl.

    With a tokenizer, rows are `input_ids`, `labels` and `attention_mask`, each (T,), the
    loss covering exactly the turns marked as trained: what both trainers use as it is.
    Without one, rows keep the `messages` shape with its flag per turn, which Axolotl
    reads through `message_field_training: train`; TRL ignores that flag, so give
    SFTTrainer tokens, and with them `dataset_kwargs={"skip_prepare_dataset": True}`, or it
    cuts rows at its own `max_length`. Keep the order: `train_sampling_strategy="sequential"`
    in TRL, `curriculum_sampling: true` in Axolotl (the plugin sets it).

    Args:
        agent: Agent data; none or empty only if eta is 0.
        general: General chat; none or empty only if eta is 1.
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
        max_length: Longest row in tokens, by default the tokenizer's own limit. Longer
            ones are left out, and a log line counts them.
        end_of_turn: See `ChatRenderer`.

    Returns:
        A view of `num_examples` rows on the sources.

    Raises:
        ConfigError: A setting is out of range, a source that eta needs is missing, or the
            tokenizer cannot be used.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    plan = with_source_weights(
        Plan(
            eta=tuple(Stage(*stage) for stage in eta) if isinstance(eta, Sequence) else eta,
            unit=eta_unit,
            mode=sampling,
            task_weights=dict(task_weights or {}),
            gpt4_share=gpt4_share,
            block=block,
        ),
        agent,
        general,
    )
    check_sources(agent, general, plan)
    MixOrder(1, 1, plan.eta, seed, num_examples, plan.block)
    if tokenizer is None:
        prepared = prepare_messages(agent, general, plan=plan)
    else:
        length = max_length or _length_limit(tokenizer)
        ends = (end_of_turn,) if isinstance(end_of_turn, str) else tuple(end_of_turn)
        encoding = Encoding(max_length=length, end_of_turn=ends)
        prepared = prepare(agent, general, plan=plan, tokenizer=tokenizer, encoding=encoding)
    rows, planned = mix(prepared, plan, seed=seed, num_examples=num_examples)
    for note in planned.notes:
        LOG.info("%s", note)
    return rows


def with_source_weights(plan: Plan, agent: Source | None, general: Source | None) -> Plan:
    """The plan with the weights that its sources name.

    Raises:
        ConfigError: Of several sources of one side, only some have a weight.
    """
    return replace(
        plan,
        agent_weights=source_weights(agent, "agent") or plan.agent_weights,
        general_weights=source_weights(general, "general") or plan.general_weights,
    )


def _encode(
    source: Source | None,
    what: str,
    encoder: Encoder,
    encoding: Encoding,
    report: dict[str, Any],
    on_progress: Progress | None,
) -> tuple[Dataset, pa.Table]:
    if source is None:
        raise ConfigError(f"there is no {what} data")
    columns = getattr(source, "column_names", None)
    if columns is not None and {"input_ids", "labels"} <= set(columns):
        return source, index_of(source)  # encoded before, used as it is
    conversations, reports = read_source(source, what, on_progress)

    def encoded(number: int) -> None:
        if on_progress is not None:
            on_progress(f"encoding {what}", number)

    made = encode_dataset(conversations, encoder, what=what, on_progress=encoded)
    tokens = made.report
    report[what] = {
        "sources": _accounts(reports),
        "tokens": {**asdict(tokens), "summary": tokens.summary()},
    }
    for line in report_lines({what: report[what]}):
        LOG.info("%s", line)
    return made.dataset, made.index


def report_lines(report: dict[str, Any]) -> list[str]:
    """What a report says of each source, a line each: nothing is left out unseen."""
    lines: list[str] = []
    for what in ("agent", "general"):
        part = report.get(what) or {}
        lines += [source["summary"] for source in part.get("sources", [])]
        if "tokens" in part:
            lines.append(f"{what}: {part['tokens']['summary']}")
    return lines


def _messages(source: Source | None, what: str, report: dict[str, Any]) -> Dataset:
    if source is None:
        raise ConfigError(f"there is no {what} data")
    if "messages" in (getattr(source, "column_names", None) or ()):
        return source
    conversations, reports = read_source(source, what, None)
    rows = to_dataset(list(conversations))
    report[what] = {"sources": _accounts(reports)}
    return rows


def _accounts(reports: list[SourceReport]) -> list[dict[str, Any]]:
    # Only after the conversations were gone through: reports are complete then.
    return [{**report.to_dict(), "summary": report.summary()} for report in reports]


def _length_limit(tokenizer: Any) -> int:
    limit = int(tokenizer.model_max_length)
    # Tokenizers that know no limit say 10**30.
    if limit > 10**9:
        raise ConfigError("max_length: the tokenizer states no limit, so it has to be given")
    return limit
