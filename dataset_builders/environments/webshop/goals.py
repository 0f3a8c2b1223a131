"""Shopping goals: WebShop's, in WebShop's order.

A synthetic goal is a product with one combination of its options; a human goal is a written
instruction, with the options it names. WebShop shuffles all goals with seed 233.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dataset_builders.environments.webshop.catalogue import Product, Wish

_SEED = 233
_LIMITS = tuple(10.0 * tens for tens in range(1, 100))
_NEXT_LIMITS = 4
NO_LIMIT = 1_000_000.0
"""Price limit, in dollars, of a goal without one."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A shopping goal.

    Attributes:
        asin: The product that it was made from; others may satisfy it too.
        instruction: Instruction to the shopper.
        wish: The instruction without options and price.
        query: The product's search term.
        product_category: The product's place in the shop's tree.
        title: The product's title.
        attributes: Properties asked for.
        options: Values of options asked for.
        price_limit: Dollars; `NO_LIMIT` if there is none.
        weight: How likely WebShop draws it where no goal is named: rare properties count.
    """

    asin: str
    instruction: str
    wish: str
    query: str
    product_category: str
    title: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    price_limit: float
    weight: float = 1.0


def product_price(product: Product) -> float:
    """Return a product's price in dollars; for a range one price in it, always the same.

    WebShop draws it anew each time it starts.
    """
    if len(product.prices) == 1:
        return product.prices[0]
    return random.Random(f"price {product.asin}").uniform(*product.prices)


def make_goals(products: Iterable[Product], *, human: bool) -> list[Goal]:
    """Make all goals, in the order of WebShop's shuffle.

    Args:
        products: Products with wishes, in the catalogue's order.
        human: Whether to use human goals instead of synthetic ones.
    """
    goals: list[Goal] = []
    for product in products:
        goals += _human_goals(product) if human else _synthetic_goals(product)
    if not human:
        counts = Counter(itertools.chain.from_iterable(goal.attributes for goal in goals))
        goals = [replace(goal, weight=_weight(goal.attributes, counts)) for goal in goals]
    random.Random(_SEED).shuffle(goals)
    return goals


def _weight(attributes: Sequence[str], counts: Counter[str]) -> float:
    return sum(1 / counts[attribute] for attribute in attributes) / len(attributes)


def _synthetic_goals(product: Product) -> Iterator[Goal]:
    wish = product.wish
    if wish is None:
        return
    limit = _price_limit(product, 0)
    names = sorted(product.options)
    for values in itertools.product(*(product.options[name] for name in names)):
        pairs = zip(names, values, strict=True)
        wanted = ", and ".join(f"{name}: {value}" for name, value in pairs)
        text = f"{wish.text} with {wanted}" if wanted else wish.text
        yield _goal(product, wish, text, values, limit)


def _human_goals(product: Product) -> Iterator[Goal]:
    for number, wish in enumerate(product.human_wishes):
        limit = _price_limit(product, number)
        yield _goal(product, wish, wish.text.strip("."), wish.options or (), limit)


def _goal(product: Product, wish: Wish, text: str, options: tuple[str, ...], limit: float) -> Goal:
    if limit < NO_LIMIT:
        text += f", and price lower than {limit:.2f} dollars"
    return Goal(
        asin=product.asin,
        instruction=text,
        wish=wish.text,
        query=product.query,
        product_category=product.product_category,
        title=product.title,
        attributes=wish.attributes,
        options=options,
        price_limit=limit,
    )


def _price_limit(product: Product, number: int) -> float:
    """Return the larger of two of the four tens of dollars above the price, as in WebShop.

    WebShop's draw differs between runs; ours depends on the product and the wish alone.
    """
    price = product_price(product)
    limits = [limit for limit in _LIMITS if limit > price][:_NEXT_LIMITS]
    if len(limits) < 2:
        return NO_LIMIT
    return max(random.Random(f"limit {product.asin} {number}").sample(limits, 2))
