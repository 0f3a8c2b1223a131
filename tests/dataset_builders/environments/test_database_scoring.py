"""AgentBench's metric, and the exact hash of tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments.database.scoring import (
    agentbench_match,
    exact_hash,
    table_hash,
)

rows_of_text = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 99)), max_size=6)


@given(rows_of_text, st.randoms())
def test_table_hash_ignores_the_order_of_rows(rows: list[tuple[str, int]], rng: Any) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert table_hash(rows) == table_hash(shuffled)


def test_table_hash_leaves_nulls_out() -> None:
    assert table_hash([("a", None, 1)]) == table_hash([("a", 1)])
    assert table_hash([("a", 1)]) != table_hash([("a", 2)])
    assert table_hash([]) != table_hash([("",), ("a",)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", None)], [(None, "a")]),
        ([("a,b", "c")], [("a", "b,c")]),
        ([(None,)], [("",)]),
        ([(1,)], [("1",)]),
        ([("a",), ("a",)], [("a",)]),
    ],
)
def test_only_equal_tables_have_an_equal_exact_hash(one: list[Any], other: list[Any]) -> None:
    assert exact_hash(one) != exact_hash(other)
    assert exact_hash([*one, ("x", 1)]) == exact_hash([("x", 1), *one])


def test_table_hash_may_be_cut_as_mysql_cuts_it() -> None:
    rows = [(str(number),) for number in range(400)]
    # 1,024 characters hold 170 hashes of five with their commas, and four of the next.
    assert table_hash(rows, 1024) != table_hash(rows)
    assert table_hash(rows[:170], 1024) == table_hash(rows[:170])


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        (' ["12"]', ["12"], True),
        (" [12.0]", ["12"], True),
        (" [12.001]", ["12"], False),
        (" 12", ["12"], True),
        (" Lark", ["Lark"], False),
        (' "Lark"', ["Lark"], False),
        (' ["1,234"]', ["1234"], False),
        (' ["b", "a"]', ["a", "b"], True),
        (" [1, 2]", ["1", "2"], False),
        (' ["a", "a", "b"]', ["a", "b"], True),
        (" [('a',)]", ["a"], False),
        (" [['a'], 'b']", ["a", "b"], False),
        (" ('a', 'b')", ["a", "b"], True),
        (" [null]", ["0"], False),
        (" [__import__('os').getpid()]", ["1"], False),
        ("", ["a"], False),
        (" []", ["a"], False),
    ],
)
def test_agentbench_compares_python_lists(answer: str, label: list[str], expected: bool) -> None:
    assert agentbench_match(answer, label) is expected


@given(st.text(), st.lists(st.text()))
def test_any_text_is_an_answer_to_agentbench(answer: str, label: list[str]) -> None:
    assert agentbench_match(answer, label) in (True, False)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_label_written_as_python_matches_itself(label: list[str]) -> None:
    # As in AgentBench, a single "nan" is a number that equals nothing.
    number = label[0].strip().lower().lstrip("+-") if len(label) == 1 else ""
    assert agentbench_match(f" {label!r}", label) is (number != "nan")
