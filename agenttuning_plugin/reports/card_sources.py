"""Sections of a model card on the training data: counts, realised eta, licences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

NOT_STATED = "not stated"

_SIDES = ("agent", "general")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")
_UNITS = {"examples": "examples", "tokens": "tokens", "trained_tokens": "trained tokens"}


def hub_id(name: str) -> bool:
    """Whether a name is a hub id, not a path that exists here."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def data_lines(manifest: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """Return the sources with their record counts, and the realised share of agent data.

    Args:
        manifest: Content of `manifest.json`; empty if there is none.
        report: Content of `agenttuning_report.json`, likewise.
    """
    if not manifest:
        return ["Not known: the folder has no `manifest.json`."]
    lines = ["| Side | Source | Records read | Records kept |", "|---|---|---|---|"]
    for side, path, source in _sources(manifest):
        counts = [_number(source.get(key)) for key in ("records", "records_kept")]
        lines.append(f"| {side} | {_cell(path)} | {counts[0]} | {counts[1]} |")
    rows = [
        f"{side} {_number(manifest[side]['rows'])} with "
        f"{_number(manifest[side].get('trained_tokens'))} trained tokens"
        for side in _SIDES
        if manifest.get(side)
    ]
    lines += ["", f"Rows: {'; '.join(rows)}.", "", *_eta_lines(manifest, report)]
    limit = (manifest.get("encoding") or {}).get("max_length")
    lines += ["", f"Maximum length {limit} tokens. Manifest `{manifest.get('sha256', '')}`."]
    return lines


def _eta_lines(manifest: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    mix, wanted = report.get("mix") or {}, manifest.get("wanted") or {}
    loss = report.get("loss") or manifest.get("loss") or {}
    yield "| Share of agent data | |"
    yield "|---|---|"
    yield f"| wanted (eta), in {wanted.get('unit', 'example')}s | {wanted.get('eta')} |"
    for key, label in _UNITS.items():
        if (share := mix.get(f"share_of_{key}")) is not None:
            yield f"| realised, in {label} | {share:.4f} |"
    if loss.get("agent_share") is not None:
        label = f"realised, in the loss (normalised by {loss.get('normalization')})"
        yield f"| {label} | {loss['agent_share']:.4f} |"
    if mix:
        yield f"| examples drawn, seed | {_number(mix.get('examples'))}, {mix.get('seed')} |"
        for side in _SIDES:
            if (passes := mix.get(f"{side}_passes")) is not None:
                yield f"| passes over {side} data | {passes:.2f} |"


def licence_lines(base: str, manifest: Mapping[str, Any]) -> list[str]:
    """Return the licence of the base model and of each source, as its card states it.

    Args:
        base: Path or hub id of the base model.
        manifest: See `data_lines`.
    """
    lines = ["| Part | Licence that its card states |", "|---|---|"]
    if base:
        lines.append(f"| base model {_cell(base)} | {licence_of(base, 'model')} |")
    for side, path, _ in _sources(manifest):
        lines.append(f"| {side} data {_cell(path)} | {licence_of(path, 'dataset')} |")
    return [*lines, "", '"Not stated": no card with a licence was found beside it.']


def licence_of(name: str, kind: str) -> str:
    """Return the licence in the front matter of a card on disk; nothing is downloaded.

    Args:
        name: File, folder, or hub id whose card is in the hub's cache.
        kind: "model" or "dataset".
    """
    from huggingface_hub import RepoCard, try_to_load_from_cache

    place = Path(name).expanduser()
    card: Any = (place if place.is_dir() else place.parent) / "README.md"
    if not place.exists():
        card = None
        with suppress(ValueError):  # not a hub id
            card = try_to_load_from_cache(name, "README.md", repo_type=kind)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return NOT_STATED
    try:
        data = RepoCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError):
        return NOT_STATED
    licences = data.get("license_name") or data.get("license") or NOT_STATED
    return _cell(", ".join(licences) if isinstance(licences, list) else str(licences))


def _sources(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield side, path and facts of each source; data that were handed over have no path."""
    where = manifest.get("where") or {}
    for side in _SIDES:
        if facts := manifest.get(side):
            paths: Sequence[str] = where.get(side) or ()
            sources = facts.get("sources") or [{"records": None, "records_kept": facts["rows"]}]
            for number, source in enumerate(sources):
                path = paths[number] if number < len(paths) else "given in memory"
                yield side, path, source


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not recorded"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
