"""Certify loss masks: two independent methods must locate the same turns.

A wrong mask does not show in a loss curve, so no single method is trusted: on a sample, and
wherever marks are lost, a second method must find the same characters. Where two methods differ,
the build stops and shows the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dataset_builders.errors import CertificationError, MaskError
from dataset_builders.masks.spans import Dialogue, Span, first_of
from dataset_builders.masks.turns import TurnFinder

_AROUND = 160
"""Characters shown on each side of a disagreement."""


def certify(finder: TurnFinder, dialogue: Dialogue, text: str, spans: Sequence[Span]) -> None:
    """Check spans located by marks against a second method and the skeleton's.

    Conversations that are not certified have their turns located by the skeleton alone,
    where the template has one.

    Raises:
        CertificationError: The other method finds a different span.
        MaskError: There is no other method for a turn.
    """
    quick = finder.by_skeleton(dialogue, text)
    if quick is not None:
        for index, span, same in zip(dialogue.trained, spans, quick.spans, strict=True):
            _compare(text, index, ("marks", span), ("the skeleton", same))
    for index, span in zip(dialogue.trained, spans, strict=True):
        name, other = next(finder.one_by_one(dialogue, text, index), ("", None))
        if other is None:
            raise _only_one("marks", index)
        _compare(text, index, ("marks", span), (name, other))


def find_twice(finder: TurnFinder, dialogue: Dialogue, text: str) -> list[Span]:
    """Locate turns whose marks are lost, each by two methods.

    Raises:
        CertificationError: Two methods find different spans.
        MaskError: Fewer than two methods find a turn.
    """
    spans = []
    for index in dialogue.trained:
        found = []
        for way in finder.one_by_one(dialogue, text, index):
            found.append(way)
            if len(found) == 2:
                break
        if len(found) < 2:
            finder.explain(dialogue, text, index)
            raise _only_one(found[0][0] if found else "", index)
        _compare(text, index, *found)
        spans.append(found[0][1])
    return spans


def check_spans(text: str, dialogue: Dialogue, spans: Sequence[Span], ends: Iterable[str]) -> None:
    """Check that turns do not overlap, and that none contains an end token before its end.

    Raises:
        MaskError: A turn begins before the end of another, or an end token stands within one.
    """
    ends = tuple(ends)
    behind = 0
    for index, span in zip(dialogue.trained, spans, strict=True):
        if span.start < behind or span.end <= span.start:
            raise MaskError(f"message {index}: its trained text overlaps the turn before it")
        behind = span.end
        first = first_of(ends, text, span.start, span.end)
        if first is None or first.end != span.end:
            raise MaskError(
                f"message {index}: the template ends this turn more than once: generation "
                f"would stop at {text[first.start : first.end] if first else ''!r} within it"
            )


def _only_one(name: str, index: int) -> MaskError:
    found = f"only one method finds it ({name})" if name else "no method finds it"
    return MaskError(f"message {index}: the trained turn cannot be located for certain: {found}")


def _compare(text: str, index: int, first: tuple[str, Span], second: tuple[str, Span]) -> None:
    if first[1] == second[1]:
        return
    shown = "\n".join(f"{name}: {_show(text, span)}" for name, span in (first, second))
    raise CertificationError(
        f"message {index}: {first[0]} and {second[0]} find different trained text, found "
        f"characters {first[1].start}-{first[1].end} and {second[1].start}-{second[1].end}, "
        f"expected the same. The mask of this template cannot be trusted.\n{shown}"
    )


def _show(text: str, span: Span) -> str:
    before = text[max(0, span.start - _AROUND) : span.start]
    inside = text[span.start : span.end]
    if len(inside) > 2 * _AROUND:
        inside = f"{inside[:_AROUND]} … {inside[-_AROUND:]}"
    return f"{before!r}«{inside!r}»{text[span.end : span.end + _AROUND]!r}"
