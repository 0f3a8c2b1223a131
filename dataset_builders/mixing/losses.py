"""Warn if a large share of a mix's data was dropped or cut, from its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataset_builders.encoding.token_rows import KEEP_SHARE, length_for

LOSS_SHARE = 0.05
"""Smallest fraction of a side that triggers a warning."""

LEFT_OUT = {
    "thoughts_left_out": (
        "their reasoning",
        "if it shows reasoning of the last turn only, rows: auto or one record per turn that ends "
        "with it keeps it; if it shows none with a call, calls_as_text does",
    ),
    "words_left_out": ("the text that accompanies a call", "calls_as_text keeps them"),
}
"""What a template may omit from a turn, by counter name: description and remedy."""

REQUESTED = ("duplicate", "near_duplicate", "page_markup", "language_", "reward_below_threshold")
"""Drop reasons of the cleaning steps and of `min_reward`, which the user requested."""

_TOO_LONG = ("too_long", "no_trained_token_left")


def loss_warnings(report: Mapping[str, Any], max_length: int | None = None) -> list[str]:
    """Describe data losses of `LOSS_SHARE` or more of a side.

    Args:
        report: `EncodedSources.report`; may have been through JSON.
        max_length: Longest row in tokens, or none if rows are not encoded.

    Returns:
        For each side at most one line on records that were read and cannot be used, one on
        conversations that give no row, one on trained turns that were left out, and, at any number,
        one on thoughts and one on text that the template omits from them.
    """
    lines: list[str] = []
    for side in ("agent", "general"):
        part = report.get(side) or {}
        lines += _of_sources(side, part.get("sources", []))
        lines += _of_rows(side, part.get("tokens") or {}, max_length)
    return lines


def row_notes(report: Mapping[str, Any]) -> list[str]:
    """State per side how many conversations give rows turn by turn, since eta counts rows."""
    return [
        f"{side}: {tokens['by_turn']:,} of {tokens['kept']:,} conversations give "
        f"{tokens['turn_rows']:,} rows, so that each trained turn has the history of inference; "
        "an example is a row"
        for side in ("agent", "general")
        if (tokens := (report.get(side) or {}).get("tokens") or {}).get("by_turn")
    ]


def _of_sources(side: str, sources: list[Mapping[str, Any]]) -> list[str]:
    read = sum(source["read"] for source in sources)
    reasons: dict[str, int] = {}
    for source in sources:
        for reason, number in source["dropped"].items():
            if not reason.startswith(REQUESTED):
                reasons[reason] = reasons.get(reason, 0) + number
    lost = sum(reasons.values())
    if not read or lost < LOSS_SHARE * read:
        return []
    return [f"{side}: {_share(lost, read)} records cannot be used: {_listed(reasons)}"]


def _of_rows(side: str, tokens: Mapping[str, Any], max_length: int | None) -> list[str]:
    lines: list[str] = []
    read, dropped = tokens.get("read", 0), tokens.get("dropped", {})
    lost = sum(dropped.values())
    remedy = _remedy(tokens.get("lengths", {}), max_length)
    if read and lost >= LOSS_SHARE * read:
        too_long = any(reason in dropped for reason in _TOO_LONG)
        lines.append(
            f"{side}: {_share(lost, read)} conversations give no row: {_listed(dropped)}"
            + (remedy if too_long else "")
        )
    lines += left_out_warnings(side, tokens)
    turns, removed = tokens.get("trained_turns", 0), tokens.get("turns_removed", 0)
    if turns and removed >= LOSS_SHARE * turns:
        lines.append(
            f"{side}: {_share(removed, turns)} trained turns are left out of conversations that "
            f"are too long{remedy}"
        )
    kept, cut = tokens.get("kept", 0), tokens.get("truncated", 0)
    if kept and cut >= LOSS_SHARE * kept:
        lines.append(f"{side}: {_share(cut, kept)} conversations have their end cut off{remedy}")
    return lines


def left_out_warnings(side: str, tokens: Mapping[str, Any]) -> list[str]:
    """Describe what the chat template omits from trained turns, at any number.

    Args:
        side: Name of the data in the lines.
        tokens: A `TokenReport` as a dictionary.
    """
    lines = []
    for name, (what, remedy) in LEFT_OUT.items():
        if count := tokens.get(name, 0):
            samples = tokens.get("samples", {}).get(name, [])
            example = f", for example {samples[0]}" if samples else ""
            turns = max(count, tokens.get("trained_turns", 0))
            lines.append(
                f"{side}: {_share(count, turns)} trained turns lose {what}, which the chat "
                f"template leaves out{example}; {remedy}"
            )
    return lines


def _remedy(lengths: Mapping[Any, int], max_length: int | None) -> str:
    wanted = length_for(lengths)
    if max_length is None or wanted is None or wanted <= max_length:
        return ""
    return (
        f"; a row holds {max_length:,} tokens, {wanted:,} would hold {KEEP_SHARE:.0%} of the "
        "conversations whole"
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.0%})"


def _listed(reasons: Mapping[str, int]) -> str:
    ranked = sorted(reasons.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {number:,}" for reason, number in ranked)
