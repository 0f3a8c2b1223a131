"""Journal of verified proposals, so that a resumed run plays none twice."""

from __future__ import annotations

import json
from pathlib import Path

from dataset_builders.errors import StorageError
from dataset_builders.storage import complete_lines


class Journal:
    """One JSON line per verified proposal; close it after use.

    Args:
        path: The file; created if necessary. A last line truncated by a crash is ignored, and its
            proposal played again.

    Raises:
        StorageError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._verdicts: dict[str, str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(path)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from error

    def _read(self, path: Path) -> int:
        whole = 0
        if not path.exists():
            return whole
        for line in complete_lines(path):
            try:
                entry = json.loads(line)
                verdict = (str(entry["proposal"]), str(entry["reason"]))
            except (ValueError, KeyError, TypeError):
                break
            self._verdicts[verdict[0]] = verdict[1]
            whole += len(line) + 1
        return whole

    def verdict(self, digest: str) -> str | None:
        """Return why a proposal was dropped, "" if it was sound, None if it was not played yet."""
        return self._verdicts.get(digest)

    def write(self, digest: str, reason: str, instruction: str) -> None:
        """Record the outcome of a proposal."""
        self._verdicts[digest] = reason
        entry = {"proposal": digest, "reason": reason, "instruction": instruction}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
