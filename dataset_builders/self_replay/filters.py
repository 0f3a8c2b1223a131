"""Reasons to drop a model's answer to a chat prompt."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from dataset_builders.collection.filters import refuses
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.finish_reason import is_cut, is_filter

REFUSED_BY_ENDPOINT = "refused_by_endpoint"

_MAX_DUPLICATE: Mapping[int, float] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Maximum share of characters in repeated n-grams, by n (Gopher, arXiv 2112.11446, table A1)."""

# Scripts without blanks between words are compared by characters.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")


def drop_reason(reply: Reply, filters: Collection[Any]) -> str:
    """Return why an answer is dropped, or "".

    Args:
        reply: The answer.
        filters: Names of `made.ReplayFilter` to apply. What ends a dialogue always applies: a full
            context, and a server's own content filter.
    """
    if reply.finish_reason == CONTEXT_FULL:
        return CONTEXT_FULL
    if is_filter(reply.finish_reason):
        return REFUSED_BY_ENDPOINT
    if "cut" in filters and is_cut(reply.finish_reason):
        return "cut"
    if "empty" in filters and not reply.text.strip():
        return "empty"
    if "refusal" in filters and refuses(reply.text):
        return "refusal"
    return "repetition" if "repetition" in filters and repeats(reply.text) else ""


def repeats(text: str) -> bool:
    """Whether too much of a text is in n-grams that occurred before, as in a loop."""
    words = _WORD.findall(text)
    total = sum(map(len, words))
    return any(
        _repeated_characters(words, n) > share * total for n, share in _MAX_DUPLICATE.items()
    )


def _repeated_characters(words: list[str], n: int) -> int:
    """Return the characters in n-grams that occurred before, none counted twice."""
    seen: set[tuple[str, ...]] = set()
    place = found = 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        if gram in seen:
            found += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return found
