"""Files of endpoint evaluation in the output folder: adapters and results by step."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from evaluators.evaluator import RECORDS_FILE, EvalResult
from evaluators.results.evaluations import evaluation_of, read_evaluations

FOLDER = "endpoint"
"""Folder in the trainer's output folder: adapters, logs, results and transcripts by step."""

PREFIX = "endpoint_"
"""Prefix of the evaluators' names in logs and records: the same ones may also run in training."""

ADAPTER = "adapter-"
"""Prefix of a step's adapter folder, followed by a digest of its weights."""


def results_in(folder: Path) -> list[EvalResult]:
    """Rows that `agenttuning evaluate` wrote, under the names that they have here."""
    if not (folder / RECORDS_FILE).is_file():
        return []
    found = map(evaluation_of, read_evaluations(folder))
    return [replace(result, evaluator=PREFIX + result.evaluator) for result in found]


def digest(adapter: Path) -> str:
    """Return a digest of an adapter's files: other weights have another one."""
    digest = blake2b(digest_size=6)
    for file in sorted(path for path in adapter.rglob("*") if path.is_file()):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def prefix_of(output: Path) -> str:
    """Return a run's prefix of adapter names on the server, unique among runs."""
    folder = output.resolve()
    return f"{folder.name}-{blake2b(str(folder).encode(), digest_size=3).hexdigest()}"


def adapter_in(folder: Path) -> Path:
    """Return the adapter in a step's folder; a path that does not exist if it was deleted."""
    return next(iter(sorted(folder.glob(f"{ADAPTER}*"))), folder / f"{ADAPTER}gone")


def step_of(folder: Path) -> int:
    """Return the step of a folder; 0 if its name has none."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else 0
