from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.conversation import Message
from dataset_builders.endpoints.pricing import Price, PriceTable
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import request_key
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.ledger import AttemptResult, Turn, Usage
from dataset_builders.rollouts.limits import Limits

TEXT = st.text(st.characters(), max_size=40)  # Lone surrogates, NUL and all.


def trajectory(task_id: str, *texts: str) -> Trajectory:
    messages = [Message("user", "Do")]
    messages += [Message("assistant", text, trained=True) for text in texts]
    return Trajectory(task_id, "database", "train", tuple(messages), 1.0, "answered", 1, 1, True)


@given(texts=st.lists(TEXT, min_size=1, max_size=4), shown=TEXT, said=TEXT)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(
    texts: list[str], shown: str, said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "s.sqlite"
    reply = Reply(said, "length", "m", 10, 4, 3, 0.25, 1.5, 2)
    turn = Turn("a", 1, 0, "act", shown, "key", reply)
    ending = AttemptResult(trajectory("a", *texts), 1, True, Usage(10, 3, 0.25, 1))

    async def write() -> None:
        store = SqliteRolloutLog(path)
        store.add_tasks(["a", "b"])
        assert await store.record(turn)
        assert not await store.record(turn)
        assert await store.end(ending)
        assert not await store.end(ending)
        store.close()

    asyncio.run(write())
    store = SqliteRolloutLog(path)
    assert asyncio.run(store.turns("a", 1)) == [turn]
    assert asyncio.run(store.turns("a", 0)) == []
    assert asyncio.run(store.turns("a", 1, "thought")) == []
    assert asyncio.run(store.reply("key")) == reply
    assert list(store.endings()) == [(0, ending)]
    assert store.open_tasks() == [("b", 0)]
    assert store.spent() == Usage(10, 3, 0.25, 1, cached_tokens=4)
    store.close()


def test_a_task_that_has_ended_takes_no_other_attempt(tmp_path: Path) -> None:
    store = SqliteRolloutLog(tmp_path / "s.sqlite")
    store.add_tasks(["a"])

    async def end(attempt: int, final: bool) -> bool:
        return await store.end(AttemptResult(trajectory("a", "x"), attempt, final))

    assert asyncio.run(end(0, False))
    assert store.open_tasks() == [("a", 1)]
    assert asyncio.run(end(1, True))
    assert not asyncio.run(end(2, True))
    assert not asyncio.run(end(0, True))
    assert store.open_tasks() == []
    assert store.numbers() == (1, 1)
    store.close()


def test_one_reply_without_a_price_makes_the_cost_unknown(tmp_path: Path) -> None:
    store = SqliteRolloutLog(tmp_path / "s.sqlite")
    store.add_tasks(["a"])
    for number, cost in enumerate((0.5, None)):
        reply = Reply("x", prompt_tokens=1, cost=cost)
        asyncio.run(store.record(Turn("a", 0, number, "act", "", f"key {number}", reply)))
    assert store.spent() == Usage(2, 0, None, 2)
    store.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("something else entirely, and long enough to be read")
    with pytest.raises(DataError, match="not a collection"):
        SqliteRolloutLog(tmp_path / "s.sqlite")
    (tmp_path / "s.sqlite").unlink()
    SqliteRolloutLog(tmp_path / "s.sqlite").close()


def test_readers_may_look_while_it_is_written(tmp_path: Path) -> None:
    store = SqliteRolloutLog(tmp_path / "s.sqlite")
    store.add_tasks(["a"])
    database = sqlite3.connect(tmp_path / "s.sqlite")
    assert database.execute("SELECT task_id FROM tasks").fetchall() == [("a",)]
    database.close()
    store.close()


def test_keys_differ_where_requests_do() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0.1}
    others = [
        (body | {"model": "n"}, 0),
        (body | {"temperature": 0.2}, 0),
        (body | {"messages": [{"role": "user", "content": "y"}]}, 0),
        (body, 1),
    ]
    keys = {request_key(*other) for other in [*others, (body, 0)]}
    assert len(keys) == 5
    assert request_key(dict(reversed(body.items())), 0) == request_key(body, 0)


def test_cached_tokens_have_their_own_price() -> None:
    table = PriceTable({"a": Price(2.0, 6.0, 0.5), "b": Price(2.0, 6.0)})
    assert table.cost("a", 1000, 400, 100) == pytest.approx((600 * 2 + 400 * 0.5 + 600) / 1e6)
    assert table.cost("b", 1000, 400, 100) == pytest.approx((1000 * 2 + 600) / 1e6)
    assert table.cost("c", 1000, 400, 100) is None


def test_limits_are_named_and_positive() -> None:
    limits = Limits(steps=3, tokens=100, cost=0.5, seconds=9)
    assert limits.reached(2, Usage(50, 49, 0.4, 2), 8) == ""
    assert limits.reached(3, Usage(), 0) == "step_limit"
    assert limits.reached(0, Usage(50, 50), 0) == "token_limit"
    assert limits.reached(0, Usage(0, 0, 0.5), 0) == "cost_limit"
    assert limits.reached(0, Usage(), 9) == "time_limit"
    with pytest.raises(ConfigError, match="tokens"):
        Limits(tokens=0)
