"""The strict comparison of answers with the rows of a result."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments.database.answers import MAX_ANSWER_CHARS, answer_matches

TWO = [("Heron", 31), ("O'Neil", 7)]


@pytest.mark.parametrize(
    ("answer", "rows", "expected"),
    [
        # One value, however it is written.
        ('["12"]', [(12,)], True),
        ("[12]", [(12,)], True),
        ("12", [(12,)], True),
        ("12.0", [(12,)], True),
        ("[(12,)]", [(12,)], True),
        ('["1,234"]', [(1234,)], True),
        ("1,234", [(1234,)], True),
        ('["45%"]', [(45,)], True),
        ("'x'", [("x",)], True),
        ("[x]", [("x",)], True),
        ("['it\\'s']", [("it's",)], True),
        ("[007]", [("007",)], True),
        ("[7]", [("007",)], False),
        ("Smith John", [("Smith, John",)], False),
        ("Smith, John", [("Smith, John",)], True),
        ("45", [("45%",)], False),
        # No value is not a number.
        *(
            (answer, [(0,)], False)
            for answer in ("none", '["nan"]', '["inf"]', "[null]", '[""]', "[]", '["-"]', ".")
        ),
        *((answer, [(None,)], False) for answer in ("0", "[0]", '[""]', "[]", '["nan"]')),
        *((answer, [(None,)], True) for answer in ("None", "[null]", '["NULL"]', "[(None,)]")),
        ("[null]", [("None",)], False),
        ("[null]", [(12,)], False),
        # Numbers are as near as their size asks for.
        ("[12.005]", [(12,)], False),
        ("[9007199254740993]", [(9007199254740992,)], False),
        ("0.014", [(0.005,)], False),
        ("0.01", [(0.005,)], False),
        ("0.00", [(0.001,)], False),
        ("0.30", [(0.1 + 0.2,)], True),
        ("33.33", [(100 / 3,)], True),
        ("33.3", [(100 / 3,)], False),
        ("33.34", [(100 / 3,)], False),
        ("33", [(100 / 3,)], False),
        ("-33.33", [(100 / 3,)], False),
        ("20.25", [(Decimal("20.2500"),)], True),
        ("[Decimal('20.25')]", [(Decimal("20.2500"),)], True),
        ("1e3", [(1000,)], True),
        ("1e999", [(12.5,)], False),
        ("inf", [(float("inf"),)], True),
        ("12", [(float("inf"),)], False),
        # Rows.
        ('[["Heron", 31], ["O\'Neil", 7]]', TWO, True),
        ("[('O\\'Neil', 7), ('Heron', 31)]", TWO, True),
        ('["Heron", 31, "O\'Neil", 7]', TWO, True),
        ('["Heron", "O\'Neil", 31, 7]', TWO, False),
        ('["Heron", 7, "O\'Neil", 31]', TWO, False),
        ('["Heron", 31]', TWO, False),
        ('["Heron", 31, 7]', TWO, False),
        ("('Heron', 31)", TWO[:1], True),
        ("[3, 1, 2]", [(1,), (2,), (3,)], True),
        ("3, 1, 2", [(1,), (2,), (3,)], True),
        ("[1, 2]", [(1,), (1,), (2,)], False),
        ('["a", "a", "b"]', [("a",), ("b",)], False),
        ("[]", [], True),
        ("", [], False),
        ("none", [], False),
        # Hostile text.
        ("[" * 3000, [(12,)], False),
        ("0x" + "f" * 5000, [(12,)], False),
        ("-" * 15000 + "1", [(1,)], False),
        ('["12", {"a": [1]}]', [(12,)], False),
        ("{12}", [(12,)], False),
        ("12" + " " * MAX_ANSWER_CHARS + "3", [(12,)], False),
    ],
)
def test_answers(answer: str, rows: list[tuple[Any, ...]], expected: bool) -> None:
    assert answer_matches(answer, rows) is expected


cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[cells] * width), max_size=5)))
def test_what_the_oracle_writes_is_right(rows: list[tuple[Any, ...]]) -> None:
    texts = [str(cell) for row in rows for cell in row]
    assert answer_matches(json.dumps(texts, ensure_ascii=False), rows)
    # And rows in JSON, in another order.
    if all(isinstance(cell, str | int | None) for row in rows for cell in row):
        assert answer_matches(json.dumps(rows[::-1]), rows)


@given(st.text(), st.lists(st.tuples(cells), max_size=3))
def test_any_text_can_be_compared(answer: str, rows: list[tuple[Any, ...]]) -> None:
    assert answer_matches(answer, rows) in (True, False)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_different_whole_numbers_never_match(one: int, other: int) -> None:
    assert answer_matches(f'["{one}"]', [(other,)]) is (one == other)
