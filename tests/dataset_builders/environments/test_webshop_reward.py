"""WebShop's reward: figures worked out by hand from its rules, and properties."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builders.environments.webshop.catalogue import Product
from dataset_builders.environments.webshop.colours import plain_colour
from dataset_builders.environments.webshop.goals import Goal, product_price
from dataset_builders.environments.webshop.reward import alike, reward, title_words, type_factor

pytestmark = pytest.mark.skipif(
    find_spec("rapidfuzz") is None, reason="the extra webshop is not installed: no rapidfuzz"
)

KETTLE = Product(
    asin="B1",
    title="Nordlys Enamel Kettle, 2 Litre, for Camping",
    description="Boils quickly.",
    features=("Easy to clean", "fast boil base"),
    category="garden",
    query="kettles",
    product_category="Home \u203a Kitchen \u203a Kettles",
    prices=(30.0,),
    price_tag="$30.0",
    rating="N.A.",
    options={"color": ("dark blue", "red"), "size": ("1.7 l", "2 l")},
    attributes=("rust free", "easy use"),
)
GOAL = Goal(
    asin="B1",
    instruction="",
    wish="",
    query="kettles",
    product_category="Home \u203a Kitchen \u203a Kettles",
    title=KETTLE.title,
    attributes=("rust free", "fast boil"),
    options=("navy blue", "2 l"),
    price_limit=40.0,
)


@pytest.mark.parametrize(
    ("chosen", "price", "expected"),
    [
        ({"color": "dark blue", "size": "2 l"}, 30.0, 1.0),
        ({"color": "dark blue", "size": "2 l"}, 40.0, 1.0),
        ({"color": "dark blue", "size": "2 l"}, 40.01, 4 / 5),
        ({"color": "red", "size": "2 l"}, 30.0, 4 / 5),
        ({"color": "dark blue", "size": "1.7 l"}, 30.0, 4 / 5),
        ({}, 30.0, 3 / 5),
        ({}, 50.0, 2 / 5),
    ],
)
def test_what_is_met_is_counted(chosen: dict[str, str], price: float, expected: float) -> None:
    assert reward(KETTLE, price, chosen, GOAL) == pytest.approx(expected)


def test_properties_count_by_likeness_or_where_the_texts_have_them() -> None:
    asked = ("Rust-Free!", "boils quickly", "easy to clean", "waterproof")
    goal = replace(GOAL, attributes=asked, options=())
    assert reward(KETTLE, 30.0, {}, goal) == pytest.approx(4 / 5)


def test_unasked_options_count_where_the_text_names_them_but_never_beyond_one() -> None:
    goal = replace(GOAL, options=())
    assert reward(KETTLE, 30.0, {"extra": "camping"}, goal) == 1.0
    lacking = replace(goal, attributes=("rust free", "waterproof"))
    assert reward(KETTLE, 30.0, {"extra": "camping"}, lacking) == 1.0
    assert reward(KETTLE, 30.0, {}, lacking) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("title", "query", "category", "factor"),
    [
        ("Nordlys Enamel Kettle", "pots", "Other", 1.0),
        ("Copper Kettle", "kettles", "Other", 1.0),
        # One of the five words "nordlys enamel kettle litre camping": 0.2 is not above 0.2.
        ("Copper Kettle", "pots", "Other", 0.5),
        ("Copper Kettle", "pots", "Kitchen \u203a Home", 1.0),
        ("Woollen Scarf", "kettles", "Home \u203a Kitchen \u203a Kettles", 0.0),
    ],
)
def test_the_kind_of_product_scales_the_reward(
    title: str, query: str, category: str, factor: float
) -> None:
    bought = replace(KETTLE, title=title, query=query, product_category=category)
    assert type_factor(bought, GOAL) == factor
    chosen = {"color": "dark blue", "size": "2 l"}
    assert reward(bought, 30.0, chosen, GOAL) == pytest.approx(factor)


def test_one_word_of_many_is_hardly_the_same_kind() -> None:
    title = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo"
    goal = replace(GOAL, title=title)
    assert type_factor(replace(KETTLE, title="Kilo"), goal) == 0.1
    no_nouns = replace(GOAL, title="2 x 4")
    assert type_factor(KETTLE, no_nouns) == 1.0


@pytest.mark.parametrize(
    ("option", "colour"),
    [("dark blue", "blue"), ("navy", "navy"), ("tailored", "red"), ("xl", "xl"), ("", "")],
)
def test_colours_are_told_by_the_first_name_that_occurs(option: str, colour: str) -> None:
    assert plain_colour(option) == colour


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("machine wash", "machine washable", True),
        ("Easy-Clean", "clean easy", True),
        ("long sleeve", "long lasting", False),
        ("", "", False),
    ],
)
def test_likeness(first: str, second: str, same: bool) -> None:
    assert alike(first, second) is same


def test_titles_are_compared_without_numbers_and_function_words() -> None:
    assert title_words(KETTLE.title) == {"nordlys", "enamel", "kettle", "litre", "camping"}


words = st.sampled_from(["rust free", "fast boil", "waterproof", "navy blue", "2 l", "camping", ""])


@given(
    st.lists(words, min_size=1, max_size=4),
    st.lists(words, max_size=3),
    st.dictionaries(st.sampled_from(["color", "size", "extra"]), words),
    st.floats(0, 1000),
    st.text(max_size=30),
)
def test_a_reward_is_a_share_and_never_grows_with_the_price(
    attributes: list[str], options: list[str], chosen: dict[str, str], price: float, title: str
) -> None:
    goal = replace(GOAL, attributes=tuple(attributes), options=tuple(options), title=title)
    cheap, dear = (reward(KETTLE, each, chosen, goal) for each in (price, price + 100))
    assert 0.0 <= dear <= cheap <= 1.0


def test_a_range_of_prices_has_one_price_in_it() -> None:
    ranged = replace(KETTLE, prices=(20.0, 30.0))
    assert 20.0 <= product_price(ranged) <= 30.0
    assert product_price(ranged) == product_price(replace(ranged, title="Other"))
    assert product_price(ranged) != product_price(replace(ranged, asin="B2"))
