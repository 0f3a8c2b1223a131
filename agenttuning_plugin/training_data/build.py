"""`agenttuning build`: write a mix to disk atomically."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.reports.rows import MIX
from agenttuning_plugin.training_data.built_mix import BuiltMix
from agenttuning_plugin.training_data.made_sources import FOLDER, MakeContext, made_source
from dataset_builders.errors import AgentTuningError, ConfigError, StorageError
from dataset_builders.mixing.mixes import mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding, check_settings, prepare, prepare_messages
from dataset_builders.mixing.unit_conversion import UNITS
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import ResolvedSource
from dataset_builders.sources.spec import SourceSpec
from dataset_builders.storage import CACHE

if TYPE_CHECKING:
    from datasets import Dataset

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def build_to_disk(
    out: Path,
    *,
    agent: Sequence[str | SourceSpec],
    general: Sequence[str | SourceSpec],
    plan: Plan,
    num_examples: int,
    seed: int,
    tokenizer: str | None = None,
    chat_template: str | None = None,
    encoding: Encoding | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """Write a mix as a dataset for `datasets.load_from_disk`, with manifest and report.

    With a tokenizer the rows are ids and labels, without one they are `messages`. The same inputs
    give the same bytes, except for the report and `where` in the manifest.

    Args:
        out: Folder to make.
        agent: Agent data: paths, hub ids and specs.
        general: General data, likewise.
        plan: What the mix should be like.
        num_examples: Length of the mix.
        seed: Seed of the order.
        tokenizer: Folder or hub id, or none.
        chat_template: Chat template of this package for the tokenizer's own, or none.
        encoding: Settings of the rows; needed with a tokenizer.
        processes: Number of processes that encode.

    Returns:
        What `report.json` holds.

    Raises:
        ConfigError: `out` exists, or see `dataset_builders.mixing.preparation.prepare`.
        DataError: See there.
        SourceNotFoundError: See there.
        StorageError: There is no room for it; nothing is left at `out`.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: exists already, expected a new folder")
    if plan.unit not in UNITS:
        raise ConfigError(f"eta_unit: found {plan.unit!r}, expected one of {', '.join(UNITS)}")
    check_settings(agent, general, plan, num_examples)
    with storage_errors(out), scratch_beside(out) as scratch:
        made = MakeContext((CACHE / "prepared").expanduser() / FOLDER, tokenizer or "", None)
        sources = {
            "agent": [_resolved(source, made) for source in agent if plan.needs_agent],
            "general": [_resolved(source, made) for source in general if plan.needs_general],
        }
        loaded = None
        if tokenizer is None:
            encoding = None
            prepared = prepare_messages(sources["agent"], sources["general"], plan=plan, quiet=True)
        else:
            from agenttuning_plugin.evaluation.model_loading import load_tokenizer

            assert encoding is not None
            loaded = load_tokenizer(tokenizer, chat_template)
            prepared = prepare(
                sources["agent"],
                sources["general"],
                plan=plan,
                tokenizer=loaded,
                encoding=encoding,
                folder=scratch / "rows",
                processes=processes,
                quiet=True,  # They are in the report, which the command shows.
            )
        rows, planned = mix(prepared, plan, seed=seed, num_examples=num_examples)
        built = BuiltMix(rows, prepared, planned, plan, sources, loaded, encoding)
        return write_build(out, scratch, built, {MIX: "."}, tokenizer or "")


def _resolved(source: str | SourceSpec, context: MakeContext) -> ResolvedSource:
    """Locate a source, which is made or prepared first if it has to be."""
    spec = source if isinstance(source, SourceSpec) else SourceSpec(path=str(source))
    return resolve_source(made_source(spec, context))


def write_build(
    out: Path, scratch: Path, built: BuiltMix, places: Mapping[str, str | None], tokenizer: str
) -> dict[str, Any]:
    """Write rows, report and manifest to a temporary folder, and rename it to `out`.

    Args:
        out: Folder to make.
        scratch: Temporary folder on the same disk.
        built: The rows and what they were made from.
        places: Where the rows lie, see `BuiltMix.where`.
        tokenizer: Path or name of the tokenizer.

    Returns:
        What `report.json` holds.
    """
    rows = built.train_dataset
    if built.packing:
        rows = _packed_rows(rows, scratch / "packed")
    # Within, because the temporary folder itself is readable by its owner only.
    folder = scratch / "whole"
    _anew(rows, built.manifest.sha256).save_to_disk(folder)
    built.write(folder, out.name, "report", places, tokenizer)
    folder.rename(out)
    return built.report


def _packed_rows(rows: Dataset, folder: Path) -> Dataset:
    """Return packed rows as they are trained on, which a run assembles while reading."""
    from datasets import Dataset, Features, List, Value

    whole = List(Value("int32"))
    features = Features({"input_ids": whole, "labels": whole, "seq_lengths": whole})

    def generate() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield {name: row[name] for name in features}

    made = Dataset.from_generator(generate, features=features, cache_dir=str(folder))
    assert isinstance(made, Dataset)
    return made


def _anew(rows: Dataset, sha256: str) -> Dataset:
    """Return the same rows without their fingerprint history, which contains times and paths."""
    from datasets import Dataset, DatasetInfo

    info = DatasetInfo(features=rows.features)
    return Dataset(rows.data, info=info, indices_table=rows._indices, fingerprint=sha256[:16])


@contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """Create a temporary folder on the same disk, removed at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        yield Path(temporary)


@contextmanager
def storage_errors(out: Path) -> Iterator[None]:
    """Convert write failures to a StorageError that names the folder."""
    try:
        yield
    except AgentTuningError:
        raise
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            cause = f"no room to write it: {cause}"
        raise StorageError(f"{out}: {cause}; nothing is left there") from error
