"""Find a hub dataset in the local cache, without the network."""

from __future__ import annotations

from dataclasses import replace

from dataset_builders.errors import AgentTuningError
from dataset_builders.sources.locating import default_data_files, located
from dataset_builders.sources.spec import SourceSpec


def cached_copy(spec: SourceSpec) -> SourceSpec | None:
    """Return a hub dataset as a source in the folder of the hub's cache that holds it.

    Args:
        spec: A source whose path is a hub id.

    Returns:
        The same source by its folder, or None if its files are not in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id=spec.path,
            repo_type="dataset",
            revision=spec.revision,
            local_files_only=True,
        )
        files = spec.data_files or tuple(default_data_files(spec.path))
        copy = replace(spec, path=str(folder), data_files=files, revision=None)
        located(copy)
    # The hub client raises errors of several libraries for what is absent or is no hub id.
    except (OSError, ValueError, AgentTuningError):
        return None
    return copy
