"""Sources to rows: read, encode, hold general chat out for measuring, and mix.

`build_mix` is the whole way in one call. A trainer adapter takes the two halves apart,
so that the costly one, `prepare`, can be cached.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_builders.errors import ConfigError, DataError
from dataset_builders.mixing import BLOCK, MixOrder, mix_datasets
from dataset_builders.reading import Progress, Source, is_empty, read_source
from dataset_builders.sources import to_dataset
from dataset_builders.tokens import Encoder, LengthPolicy, encode_dataset

if TYPE_CHECKING:
    from datasets import Dataset

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoding:
    """Settings that decide what the rows of a source are.

    Attributes:
        max_length: Longest row in tokens.
        policy: What happens to longer ones, see `Encoder`.
        end_of_turn: Tokens beside eos that end a turn, see `ChatRenderer`.
        packing: Whether rows carry the columns of Axolotl's sample packing.
        holdout: General conversations kept out of training to measure the loss on.
    """

    max_length: int
    policy: LengthPolicy = "drop"
    end_of_turn: tuple[str, ...] = ()
    packing: bool = False
    holdout: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Encoded sources.

    Attributes:
        agent: Agent rows, or none if the mix needs none.
        general: General rows without those held out, or none.
        holdout: General rows held out, or none.
        report: What became of every record and conversation, JSON-ready.
    """

    agent: Dataset | None
    general: Dataset | None
    holdout: Dataset | None
    report: dict[str, Any] = field(default_factory=dict)


def prepare(
    agent: Source | None,
    general: Source | None,
    *,
    eta: float,
    tokenizer: Any,
    encoding: Encoding,
    on_progress: Progress | None = None,
) -> Prepared:
    """Read and encode the sources that a mix with this eta needs.

    General data is also read at eta 1 if conversations of it are to be held out; its rows
    are then in the result too, which so serves every eta above 0.

    Raises:
        ConfigError: A setting is out of range, a source that eta needs is missing, or the
            tokenizer cannot be used.
        DataError: A source cannot be read, or no row of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_sources(agent, general, eta)
    encoder = Encoder(
        tokenizer,
        max_length=encoding.max_length,
        policy=encoding.policy,
        end_of_turn=encoding.end_of_turn,
    )
    report: dict[str, Any] = {}
    agent_rows = general_rows = holdout = None
    if eta > 0:
        agent_rows = _encode(agent, "agent", encoder, encoding, report, on_progress)
    if not is_empty(general) and (eta < 1 or encoding.holdout):
        general_rows = _encode(general, "general", encoder, encoding, report, on_progress)
        general_rows, holdout = split_holdout(general_rows, encoding.holdout)
        if holdout is not None:
            report["holdout"] = {"rows": len(holdout)}
    return Prepared(agent_rows, general_rows, holdout, report)


def prepare_messages(agent: Source | None, general: Source | None, *, eta: float) -> Prepared:
    """Read the sources that a mix with this eta needs, without encoding them.

    Raises:
        ConfigError: eta is outside of [0, 1], or a source that it needs is missing.
        DataError: A source cannot be read, or no record of it is usable.
        SourceNotFoundError: A path or hub id leads nowhere.
    """
    check_sources(agent, general, eta)
    report: dict[str, Any] = {}
    return Prepared(
        agent=_messages(agent, "agent", report) if eta > 0 else None,
        general=_messages(general, "general", report) if eta < 1 else None,
        holdout=None,
        report=report,
    )


def check_sources(agent: Source | None, general: Source | None, eta: float) -> None:
    """Tell at once, before anything is read, that a source is missing.

    Raises:
        ConfigError: eta is outside of [0, 1], or a source that it needs is missing.
    """
    MixOrder(int(not is_empty(agent)), int(not is_empty(general)), eta, 0, 1)


def build_mix(
    agent: Source | None,
    general: Source | None,
    *,
    eta: float = 0.2,
    num_examples: int,
    seed: int = 0,
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
        eta: Probability in [0, 1] that an example is agent data (paper, section 2.3).
        num_examples: Number of examples: steps times global batch size.
        seed: Any integer; the order is a pure function of it.
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
    check_sources(agent, general, eta)
    MixOrder(1, 1, eta, seed, num_examples, block)
    if tokenizer is None:
        prepared = prepare_messages(agent, general, eta=eta)
    else:
        length = max_length or _length_limit(tokenizer)
        ends = (end_of_turn,) if isinstance(end_of_turn, str) else tuple(end_of_turn)
        encoding = Encoding(max_length=length, end_of_turn=ends)
        prepared = prepare(agent, general, eta=eta, tokenizer=tokenizer, encoding=encoding)
    return mix_datasets(
        prepared.agent,
        prepared.general,
        eta=eta,
        num_examples=num_examples,
        seed=seed,
        block=block,
    )


def split_holdout(rows: Dataset, size: int) -> tuple[Dataset, Dataset | None]:
    """Hold rows out of a dataset.

    Rows are chosen by the hash of their tokens, so the choice survives reordering and
    most edits of the file, and duplicates of a row that is held out leave training too.

    Args:
        rows: Encoded rows.
        size: Number of different rows to hold out; 0 for none.

    Returns:
        The rows that remain and those held out, or none; both are views.

    Raises:
        DataError: Fewer than `size` + 1 different rows are there.
    """
    if size == 0:
        return rows, None
    digests: dict[bytes, list[int]] = {}
    column = rows.with_format("numpy")
    for index, row in enumerate(column.iter(batch_size=1)):
        ids = np.ascontiguousarray(row["input_ids"][0], dtype=np.int32)
        digests.setdefault(hashlib.blake2b(ids.tobytes(), digest_size=16).digest(), []).append(
            index
        )
    if len(digests) <= size:
        raise DataError(
            f"general: holdout asks for {size} conversations, found {len(digests)} different "
            "ones, and one at least has to remain for training"
        )
    chosen = sorted(digests)[:size]
    held = [digests[digest][0] for digest in chosen]
    out = {index for digest in chosen for index in digests[digest]}
    return rows.select([i for i in range(len(rows)) if i not in out]), rows.select(held)


def _encode(
    source: Source | None,
    what: str,
    encoder: Encoder,
    encoding: Encoding,
    report: dict[str, Any],
    on_progress: Progress | None,
) -> Dataset:
    if source is None:
        raise ConfigError(f"there is no {what} data")
    columns = getattr(source, "column_names", None)
    if columns is not None and {"input_ids", "labels"} <= set(columns):
        return source  # encoded before, used as it is
    conversations, builders = read_source(source, what, on_progress)

    def encoded(number: int) -> None:
        if on_progress is not None:
            on_progress(f"encoding {what}", number)

    made = encode_dataset(
        conversations, encoder, what=what, packing=encoding.packing, on_progress=encoded
    )
    tokens = made.report
    report[what] = {"sources": builders, "tokens": {**asdict(tokens), "summary": tokens.summary()}}
    for line in report_lines({what: report[what]}):
        LOG.info("%s", line)
    return made.dataset


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
    conversations, builders = read_source(source, what, None)
    report[what] = {"sources": builders}
    return to_dataset(list(conversations))


def _length_limit(tokenizer: Any) -> int:
    limit = int(tokenizer.model_max_length)
    # Tokenizers that know no limit say 10**30.
    if limit > 10**9:
        raise ConfigError("max_length: the tokenizer states no limit, so it has to be given")
    return limit
