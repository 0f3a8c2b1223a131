"""Record fields about a model's answers, and the warning that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.endpoints.answer import dropped_calls, is_cut, refusal

_MOSTLY = 0.5


def answer_facts(answers: Sequence[str | None]) -> dict[str, Any]:
    """Return record fields: numbers of answers, of empty ones and of truncated ones.

    Args:
        answers: Answers to the item; None is one that did not fit the context.
    """
    said = [answer for answer in answers if answer is not None and not refusal(answer)]
    return turn_facts(said, sum(map(is_cut, said)), sum(dropped_calls(each) > 0 for each in said))


def turn_facts(turns: Sequence[str], cut: int, with_calls: int = 0) -> dict[str, Any]:
    """Return the same fields for turns with precomputed counts."""
    facts = {"turns": len(turns), "empty": sum(not each.strip() for each in turns), "cut": cut}
    return facts | ({"with_calls": with_calls} if with_calls else {})


def first_refusal(answers: Sequence[str | None]) -> str:
    """Return why the server rejected a request of the item; "" if it rejected none."""
    return next(filter(None, map(refusal, answers)), "")


def answer_warning(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a one-line warning if most answers are empty or truncated; else ""."""
    turns = sum(record.get("turns", 0) for record in records)
    found = []
    for name, words in (("empty", "are empty"), ("cut", "are cut at the token limit")):
        count = sum(record.get(name, 0) for record in records)
        if turns and count / turns > _MOSTLY:
            found.append(f"{count:,} of {turns:,} answers {words}")
    if with_calls := sum(record.get("with_calls", 0) for record in records):
        found.append(
            f"{with_calls:,} of {turns:,} answers came with native tool calls, which are dropped: "
            "serve the model without a tool parser, or set the option dialogue=tools of a task "
            "that has it"
        )
    return ", ".join(found)
