"""Locate the files of a source, locally or on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.readers.records import SUFFIXES, shard_of, stem_of, suffix_of
from dataset_builders.readers.records import Record as Record
from dataset_builders.readers.records import read_records as read_records
from dataset_builders.readers.records import split_of as split_of
from dataset_builders.readers.saved import saved_files
from dataset_builders.readers.splits import select_splits
from dataset_builders.readers.trials import files_of, trials_of

_FORMATS = ".parquet, .jsonl or .json files (the last two also with .gz, .zst or .xz)"
_EXPECTED = f"expected {_FORMATS} in the folder itself or in its data/"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Files that the datasets library and the hub put beside the data.
_METADATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
_HASH_BYTES = 2**20


class Located(NamedTuple):
    """Files of a source.

    Attributes:
        root: Folder that the file names are relative to.
        files: Files to read, sorted.
        unread: Data files of the folder that are skipped: of another format, or copies of a file
            that is read.
        evaluation: Evaluation splits, which are skipped.
        trials: Folders of harbor's trials; the files are theirs.
    """

    root: Path
    files: tuple[Path, ...]
    unread: tuple[Path, ...] = ()
    evaluation: tuple[str, ...] = ()
    trials: tuple[Path, ...] = ()

    def unread_lines(self) -> list[str]:
        """Return one report line per skipped file or split."""
        read = ", ".join(sorted({suffix_of(file) for file in self.files}))
        lines = [
            f"split {name}: not read: evaluation split; name it in splits to train on it"
            for name in self.evaluation
        ]
        return lines + [
            f"{file.relative_to(self.root).as_posix()}: not read, beside {read} files; "
            "name it in data_files if it belongs to the data"
            for file in self.unread
        ]


def locate(
    path: str,
    *,
    revision: str | None = None,
    data_files: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    all_splits: bool = False,
) -> Located:
    """Locate the files of a source.

    Args:
        path: A file, a folder (hub layout `data/<split>-00000-of-00001.parquet`, or
            data files directly in it or in its `data/`) or a hub dataset id
            `owner/name`. A local folder wins over a hub id of the same name.
        revision: Branch, tag or commit of a hub dataset.
        data_files: Glob patterns relative to the folder or dataset; None or empty: all
            files of the first format found, compressed or not.
        splits: Splits to read; None or empty: all but those for evaluation, such as
            `test`, unless `data_files` names files or there is nothing else.
        all_splits: Whether no `splits` means all of them, for what is not trained on.

    Returns:
        The files, sorted.

    Raises:
        SourceNotFoundError: Nothing is there, or no data file is in it.
        ConfigError: A split is not there, or the options do not fit the path.
        DataError: A file has another format, or a shard of a split is missing.
    """
    for pattern in data_files or ():
        parts = PurePosixPath(pattern).parts
        if not parts or pattern.startswith("/") or ".." in parts:
            raise ConfigError(
                f"data_files: found {pattern!r}, expected a pattern inside the source"
            )
    root = _local_root(path, revision) or _download(path, revision, data_files)
    if root.is_file():
        found = _single_file(root, data_files)
    elif data_files:
        found = _glob(root, data_files, path)
    else:
        found = _found(root, splits, path, all_splits=all_splits)
    if (
        found.trials
        or found.files[0].suffix == ".arrow"
        or (not splits and (data_files or all_splits))
    ):
        return found
    chosen, evaluation = select_splits(found.files, splits, path)
    unread = [file for file in found.unread if not splits or split_of(file) in splits]
    return Located(found.root, chosen, tuple(unread), evaluation)


def _local_root(path: str, revision: str | None) -> Path | None:
    local = Path(path).expanduser()
    # Path("") is the current folder, which an empty setting does not mean.
    if path and local.exists():
        if revision is not None:
            raise ConfigError(
                f"{path}: revision {revision!r} is set, but only the hub has revisions"
            )
        return local
    if looks_local(path):
        raise SourceNotFoundError(f"{path}: no such file or folder")
    return None


def looks_local(path: str) -> bool:
    """Whether a path is written as one of this machine, and so never is a hub id."""
    return path.startswith(("./", "../", "/", "~")) or path.endswith(SUFFIXES)


def _single_file(file: Path, data_files: Sequence[str] | None) -> Located:
    if data_files:
        raise ConfigError(f"{file}: data_files is set, but the source is a single file")
    if not suffix_of(file):
        raise DataError(f"{file}: found {file.suffix or 'no suffix'}, expected {_FORMATS}")
    return Located(file.parent, (file,))


def _is_data(file: Path) -> bool:
    return (
        suffix_of(file) != ""
        and file.name not in _METADATA
        and not file.name.startswith(".")
        and file.is_file()
    )


def _glob(root: Path, patterns: Sequence[str], path: str) -> Located:
    found = {file for pattern in patterns for file in root.glob(pattern) if _is_data(file)}
    if not found:
        raise SourceNotFoundError(
            f"{path}: {', '.join(patterns)}: no data in {root} matches; expected {_FORMATS}"
        )
    return Located(root, tuple(sorted(found)))


def _found(root: Path, splits: Sequence[str] | None, path: str, *, all_splits: bool) -> Located:
    trials = trials_of(root)
    if trials:
        return Located(root, tuple(file for t in trials for file in files_of(t)), trials=trials)
    saved = saved_files(root, splits, path, all_splits=all_splits)
    if saved is None:
        return _discover(root, path)
    return Located(root, saved[0], evaluation=saved[1])


def _discover(root: Path, path: str) -> Located:
    folders = [
        sorted(file for file in folder.glob("*") if _is_data(file))
        for folder in (root, root / "data")
    ]
    for format_ in dict.fromkeys(map(_format_of, SUFFIXES)):
        for present in folders:
            alike = [file for file in present if _format_of(suffix_of(file)) == format_]
            if alike:
                files = _without_packed_copies(alike)
                _check_shards(files, path)
                unread = sorted({file for folder in folders for file in folder} - set(files))
                return Located(root, tuple(files), tuple(unread))
    raise SourceNotFoundError(f"{path}: no data in {root}: {_EXPECTED}")


def _format_of(suffix: str) -> str:
    return "." + suffix.split(".")[1]


def _without_packed_copies(files: Sequence[Path]) -> list[Path]:
    # a.jsonl beside a.jsonl.gz is what `gzip --keep` leaves: the same records twice.
    chosen: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: SUFFIXES.index(suffix_of(file))):
        chosen.setdefault(stem_of(file), file)
    return sorted(chosen.values())


def _check_shards(files: Sequence[Path], path: str) -> None:
    # An interrupted download leaves some shards out, and nothing else would tell.
    shards: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for file in files:
        if shard := shard_of(file):
            split, index, total = shard
            shards[split, total].add(index)
    for (split, total), present in shards.items():
        missing = sorted(set(range(total)) - present)
        if missing:
            raise DataError(
                f"{path}: split {split}: found {len(present)} of {total} shards, missing "
                f"number {', '.join(map(str, missing[:5]))}; download again, or set data_files"
            )


def _download(path: str, revision: str | None, data_files: Sequence[str] | None) -> Path:
    if not _HUB_ID.fullmatch(path):
        raise SourceNotFoundError(
            f"{path!r}: neither a file or folder here nor a hub dataset id (owner/name)"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id=path,
            repo_type="dataset",
            revision=revision,
            allow_patterns=list(data_files or (f"*{suffix}" for suffix in SUFFIXES)),
        )
    # The hub client raises errors of several HTTP libraries, which differ by version;
    # all of them mean the same to the user.
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        at = f" at revision {revision}" if revision else ""
        raise SourceNotFoundError(
            f"{path}: not a local path, and not reachable on the hub{at} "
            f"({type(error).__name__}: {cause}); give a local file or folder, or check the id, "
            "the network, HF_TOKEN and HF_HUB_OFFLINE"
        ) from error
    return Path(folder)


def content_fingerprint(located: Located) -> str:
    """Return a SHA-256, in hexadecimal, over the names and bytes of files.

    Names are relative to the source's folder, so that a copy elsewhere is the same.

    Args:
        located: Files of a source.
    """
    digest = hashlib.sha256()
    for file in located.files:
        # Fixed-length parts: no two different lists of files give the same bytes.
        name = file.relative_to(located.root).as_posix()
        digest.update(hashlib.sha256(name.encode()).digest())
        content = hashlib.sha256()
        with file.open("rb") as handle:
            while chunk := handle.read(_HASH_BYTES):
                content.update(chunk)
        digest.update(content.digest())
    return digest.hexdigest()
