"""What a mix lost is told where it is seen, with the length that would keep most."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.token_rows import LENGTH_STEP, TokenReport, length_for
from dataset_builders.errors import DataError
from dataset_builders.mixing.losses import LOSS_SHARE, loss_warnings
from dataset_builders.mixing.mixes import build_mix
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import Encoding, prepare

pytest.importorskip("transformers")


def talk(words: int, turns: int = 1) -> Conversation:
    """A trajectory of turns, the words of its answers in all."""
    messages = []
    for number in range(turns):
        messages += [Message("user", f"Step {number}?")]
        messages += [Message("assistant", "word " * (words // turns), trained=True)]
    return Conversation.create(messages, id=f"{words}", source="s", task="db")


def source(**changes: Any) -> dict[str, Any]:
    return {"source": "x", "read": 100, "kept": 100, "dropped": {}, **changes}


@pytest.mark.parametrize(
    ("dropped", "line"),
    [
        ({"no_turns": 4}, None),
        ({"no_turns": 4, "bad_json": 1}, "agent: 5 of 100 (5%) records cannot be used: no_turns 4"),
        # What the cleaning of chat was asked to leave out is no loss.
        ({"duplicate": 30, "near_duplicate": 9, "language_de": 20, "page_markup": 1}, None),
    ],
)
def test_records_that_cannot_be_used(dropped: dict[str, int], line: str | None) -> None:
    report = {"agent": {"sources": [source(dropped=dropped)]}, "general": {"sources": [source()]}}
    found = loss_warnings(report)
    assert len(found) == (line is not None)
    assert line is None or found[0].startswith(line)
    assert LOSS_SHARE == 0.05


def test_shares_are_of_a_side() -> None:
    few = source(read=10, kept=5, dropped={"no_turns": 5})
    assert not loss_warnings({"agent": {"sources": [few, source(read=1000)]}})
    assert loss_warnings({"agent": {"sources": [few]}, "general": {"sources": [source(read=1000)]}})


def test_the_length_that_keeps_most() -> None:
    report = TokenReport()
    assert length_for(report.lengths) is None
    for tokens in range(1, 101):
        report.count_length(tokens * LENGTH_STEP)
    other = TokenReport()
    other.count_length(1)
    report.add(other)
    assert length_for(report.lengths) == 95 * LENGTH_STEP
    assert length_for({str(key): number for key, number in report.lengths.items()}, 1.0) == 6400


@pytest.mark.parametrize("policy", ["drop", "shorten", "truncate"])
def test_long_trajectories_are_warned_of(
    small_tokenizer: Any, caplog: pytest.LogCaptureFixture, policy: Any
) -> None:
    agent = [talk(40, 4) for _ in range(90)] + [talk(2000, 4) for _ in range(10)]
    limit = 4000 if policy == "shorten" else 1000
    encoding = Encoding(max_length=limit, policy=policy)
    plan = Plan(0.5)
    general = [talk(20) for _ in range(30)]
    with caplog.at_level(logging.WARNING):
        prepared = prepare(agent, general, plan=plan, tokenizer=small_tokenizer, encoding=encoding)
    (line,) = [record.getMessage() for record in caplog.records]
    says = {
        "drop": "agent: 10 of 100 (10%) conversations give no row: too_long 10",
        "shorten": "agent: 20 of 400 (5%) trained turns are left out of conversations",
        "truncate": "agent: 10 of 100 (10%) conversations have their end cut off",
    }[policy]
    assert line.startswith(says)
    wanted = length_for(prepared.report["agent"]["tokens"]["lengths"])
    assert wanted is not None
    assert line.endswith(
        f"; a row holds {limit:,} tokens, {wanted:,} would hold 95% of the conversations whole"
    )
    # It is true: with that length nothing is left out.
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        enough = Encoding(max_length=wanted, policy=policy)
        prepare(agent, general, plan=plan, tokenizer=small_tokenizer, encoding=enough)
    assert not caplog.records


def test_a_few_long_ones_are_not(small_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    agent = [talk(40) for _ in range(96)] + [talk(2000) for _ in range(4)]
    with caplog.at_level(logging.WARNING):
        build_mix(
            agent, None, eta=1, num_examples=10, tokenizer=small_tokenizer, max_length=1000,
            policy="drop",
        )  # fmt: skip
    assert not caplog.records
    with pytest.raises(DataError, match=r"A max_length of [\d,]+ would keep 95%"):
        build_mix(
            agent[-4:], None, eta=1, num_examples=9, tokenizer=small_tokenizer, max_length=1000
        )


def test_token_rows_are_counted_too(small_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    from datasets import Dataset

    rows = [{"input_ids": [5] * size, "labels": [5] * size} for size in [10] * 9 + [700]]
    with caplog.at_level(logging.WARNING):
        build_mix(
            Dataset.from_list(rows), None, eta=1, num_examples=9, tokenizer=small_tokenizer,
            max_length=99,
        )  # fmt: skip
    (line,) = [record.getMessage() for record in caplog.records]
    assert "1 of 10 (10%) conversations give no row: too_long 1; a row holds 99" in line
    assert "704 would hold 95%" in line
