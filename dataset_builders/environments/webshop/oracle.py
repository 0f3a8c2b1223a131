"""Oracle that knows the target product, and finds it only by search and clicks."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from dataset_builders.environments.base import Oracle, OracleStep
from dataset_builders.environments.webshop.catalogue import Product
from dataset_builders.environments.webshop.colours import plain_colour
from dataset_builders.environments.webshop.goals import NO_LIMIT, Goal
from dataset_builders.environments.webshop.index import MAX_HITS, ProductIndex
from dataset_builders.environments.webshop.pages import PAGE_SIZE
from dataset_builders.environments.webshop.reward import alike

_ROUNDS = 10
_PATIENCE = 3  # pages of results searched for a query in the request's words
_POLITE = re.compile(
    r"^(?:please )?(?:find me|show me|i(?: am|'m) looking for|i (?:want|need)(?: to (?:buy|find))?"
    r"|i would like(?: to (?:buy|find))?)\s+(?:an?|some|the)?\s*",
    re.IGNORECASE,
)
_SHOWN_TITLE = 60  # characters of a title quoted in a thought


def shop_for(goal: Goal, index: ProductIndex) -> Oracle:
    """Yield steps that buy the product a goal was made from.

    The query brings the product early enough to choose its options and buy it within the
    rounds there are; see `_best_query`.
    """
    say = random.Random(goal.instruction)
    product = index.product(goal.asin)
    choices = _choices(product, goal)
    query, page = _best_query(goal, product, index, _ROUNDS - 3 - len(choices))
    yield OracleStep(_why_search(goal, product, query, say), f"search[{query}]")
    for number in range(1, page):
        yield OracleStep(_why_next(number, say), "click[Next >]")
    yield OracleStep(_why_open(goal, product, say), f"click[{product.asin}]")
    for name, value in choices.items():
        yield OracleStep(_why_choose(name, value, say), f"click[{value}]")
    yield OracleStep(_why_buy(goal, product, choices, say), "click[Buy Now]")


def _queries(goal: Goal, product: Product) -> tuple[list[str], list[str]]:
    """Return queries in the request's words, then those that need knowledge of the product."""
    wish = _POLITE.sub("", goal.wish).strip(" .")
    options = " ".join(goal.options)
    asked = [
        wish,
        f"{wish} {options}",
        f"{product.query} {' '.join(goal.attributes)} {options}",
    ]
    known = [product.title, f"{product.title} {options}"]
    return [_typed(query) for query in asked], [_typed(query) for query in known]


def _best_query(goal: Goal, product: Product, index: ProductIndex, turns: int) -> tuple[str, int]:
    """Return a query and the page of its results that shows the product.

    A query in the request's words is preferred, even if the product is a page or two further: a
    shopper can know it. If no query brings the product within `turns` turns of the page, the title
    is searched for and the first page is all there is.
    """
    asked, known = _queries(goal, product)
    for queries, most in ((asked, min(_PATIENCE, turns + 1)), (known, turns + 1)):
        pages: dict[str, int] = {}
        for query in queries:
            pages[query] = _page_of(product.asin, index.search(query))
            if pages[query] == 1:
                break
        query, page = min(pages.items(), key=lambda item: item[1])
        if page <= most:
            return query, page
    return known[0], 1


def _page_of(asin: str, hits: Sequence[str]) -> int:
    """Return the page of results that shows a product; one past all pages if none does."""
    place = hits.index(asin) if asin in hits else MAX_HITS
    return place // PAGE_SIZE + 1


def _typed(query: str) -> str:
    """Return a query in a form that can be typed between brackets, on one line."""
    return " ".join(re.sub(r"[\[\]]", " ", query).split()).lower()


def _choices(product: Product, goal: Goal) -> dict[str, str]:
    """Return the value of each option that satisfies the goal."""
    choices: dict[str, str] = {}
    for wanted in goal.options:
        open_options = {n: v for n, v in product.options.items() if n not in choices}
        exact = next((name for name, values in open_options.items() if wanted in values), None)
        if exact is not None:
            choices[exact] = wanted
            continue
        near = _near(open_options, wanted)
        if near is not None:
            choices[near[0]] = near[1]
    return choices


def _near(options: Mapping[str, tuple[str, ...]], wanted: str) -> tuple[str, str] | None:
    for name, values in options.items():
        for value in values:
            if alike(plain_colour(wanted), plain_colour(value)):
                return name, value
    return None


def _why_search(goal: Goal, product: Product, query: str, say: random.Random) -> str:
    asked = ", ".join(goal.attributes)
    if query.startswith(_typed(product.title)):
        return f"The request names {asked}. I remember a product like that and search for its name."
    return say.choice(
        [
            f"The request names {asked}. I search for it in its own words.",
            f"The shop has a search box, so I begin there. What matters: {asked}.",
            f"First I need a list of candidates. I search for “{query[:_SHOWN_TITLE]}”.",
        ]
    )


def _why_next(number: int, say: random.Random) -> str:
    return say.choice(
        [
            f"None of the products on page {number} is quite what was asked for. I look further.",
            f"Page {number} does not have the right product; the next page may.",
        ]
    )


def _why_open(goal: Goal, product: Product, say: random.Random) -> str:
    title = _short(product.title)
    limit = (
        f", which is within the limit of ${goal.price_limit:.2f}"
        if goal.price_limit < NO_LIMIT
        else ""
    )
    return say.choice(
        [
            f"{product.asin}, “{title}”, fits the request and costs {product.price_tag}{limit}. "
            "I open it.",
            f"Among these, “{title}” comes closest to what was asked for. "
            f"Its price is {product.price_tag}{limit}.",
        ]
    )


def _why_choose(name: str, value: str, say: random.Random) -> str:
    return say.choice(
        [
            f"The {name} asked for is {value}, so I choose it.",
            f"This product comes in several versions. For the {name} I need {value}.",
        ]
    )


def _why_buy(goal: Goal, product: Product, choices: Mapping[str, str], say: random.Random) -> str:
    del goal
    if choices:
        chosen = " and ".join(f"{name} {value}" for name, value in choices.items())
        return f"I have chosen {chosen}, and the price of {product.price_tag} is right. I buy it."
    return say.choice(
        [
            "There is nothing to choose here and the product is what was asked for. I buy it.",
            f"It matches the request, and {product.price_tag} is an acceptable price. I buy it.",
        ]
    )


def _short(title: str) -> str:
    if len(title) <= _SHOWN_TITLE:
        return title
    return title[:_SHOWN_TITLE].rsplit(" ", 1)[0].rstrip(",;:-") + " ..."
