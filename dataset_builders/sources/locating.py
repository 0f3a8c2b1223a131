"""Locate the files of a source."""

from __future__ import annotations

from pathlib import Path

from dataset_builders.errors import ConfigError
from dataset_builders.formats import agentinstruct, sharegpt
from dataset_builders.readers.files import Located, locate
from dataset_builders.sources.made import PREPARED, kind_of
from dataset_builders.sources.spec import SourceSpec

# Hub datasets that contain several versions of their data.
_DEFAULT_DATA_FILES = {
    agentinstruct.HUB_ID: agentinstruct.DATA_FILES,
    sharegpt.HUB_ID: sharegpt.DATA_FILES,
}


def located(spec: SourceSpec) -> Located:
    """Locate the files of a source.

    Raises:
        ConfigError: A split is unknown, or the options do not fit the path.
        SourceNotFoundError: There is no such source.
        DataError: A file has another format, or a shard of a split is missing.
    """
    if (kind := kind_of(spec)) == PREPARED:
        raise ConfigError(
            f"{spec.label}: failed: marked, train_on: state_changing and judge: the data are not "
            "prepared yet: a recipe, `TrainingRun` or `agenttuning build` does that"
        )
    if kind:
        raise ConfigError(
            f"{kind}: the data are not made yet: a recipe or `TrainingRun` makes them, "
            f"or `agenttuning {kind.replace('_', '-')}`, whose output is a source too"
        )
    data_files = spec.data_files
    if not data_files and not Path(spec.path).expanduser().exists():
        data_files = default_data_files(spec.path)
    return locate(spec.path, revision=spec.revision, data_files=data_files, splits=spec.splits)


def default_data_files(path: str) -> tuple[str, ...]:
    """Return the files to read of a hub dataset that contains several versions of its data."""
    return tuple(_DEFAULT_DATA_FILES.get(path, ()))
