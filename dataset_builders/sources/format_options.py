"""Settings of a source that its format's converter takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataset_builders.cleaning.steps import Cleaning
from dataset_builders.formats import messages
from dataset_builders.readers.records import stem_of
from dataset_builders.sources.spec import SourceSpec


def format_options(spec: SourceSpec) -> dict[str, Any]:
    """Return the arguments of the format's converter; all are part of the fingerprint."""
    if spec.format in ("messages", "prompt_completion", "alpaca"):
        return {"source": stem_of(Path(spec.path)) or messages.SOURCE}
    if spec.format == "agentinstruct":
        # Absent without steps, so that fingerprints are those of before there were any.
        steps = {"steps": tuple(sorted(set(spec.clean)))} if isinstance(spec.clean, tuple) else {}
        return {"reconstruct": spec.reconstruct_loss} | {k: v for k, v in steps.items() if v}
    return {}


def chat_steps(spec: SourceSpec) -> Cleaning:
    """Return the cleaning steps of shared chats."""
    return spec.clean if isinstance(spec.clean, Cleaning) else Cleaning()
