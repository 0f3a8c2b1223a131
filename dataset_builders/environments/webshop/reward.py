"""WebShop's reward of a purchase (its paper, arXiv 2207.01206, section 3.1, and its code).

One thing is approximated: WebShop compares the nouns of two titles as spaCy's large
English model finds them; see `title_words`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataset_builders.environments.webshop.catalogue import STEP, Product
from dataset_builders.environments.webshop.colours import plain_colour
from dataset_builders.environments.webshop.goals import Goal
from dataset_builders.errors import MissingExtraError

_ALIKE = 85
"""Threshold of the token set ratio (0 to 100) above which two texts count as similar."""

_NOT_ASCII = dict.fromkeys(range(128, 256))

_EXACT_OPTIONS = ("size",)
_SAME_TYPE = 0.2
_OTHER_TYPE = 0.1
_NO_NOUNS = 0.2

_WORD = re.compile(r"[^\W\d_]{2,}")
# Titles are lists of names: what is left of them without these words and without
# numbers is nearly what a tagger calls nouns and proper nouns.
_NOT_NOUNS_TEXT = (
    "a about above after again all also an and any are as at be been before being below best "
    "better between big both but by can compatible could cute do does down each easy extra "
    "few fit fits for free from fresh full further good great had has have he her here high "
    "his how if in inch into is it its just large less long low made make many medium mini "
    "more most much natural new no non nor not now of off on once one only or other our out "
    "over own perfect per plus same set she short should small so some soft such than that "
    "the their them then there these they this those through to too two three under until up "
    "use used using very via was we were what when where which while who whom why will with "
    "without within would you your "
)
_NOT_NOUNS = frozenset(_NOT_NOUNS_TEXT.split())


def import_rapidfuzz() -> tuple[Any, Any]:
    """Import the fuzzy comparison and its preprocessing on first use.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from rapidfuzz import fuzz, utils
    except ImportError as error:
        raise MissingExtraError(
            "webshop: rapidfuzz is needed: pip install 'agenttuning-plugin[webshop]'"
        ) from error
    return fuzz, utils.default_process


def alike(first: str, second: str) -> bool:
    """Whether two short texts are similar, ignoring order and repetition of words.

    Both are lower-cased and stripped of punctuation first, and the ratio is rounded, as WebShop's
    library (thefuzz) does.
    """
    fuzz, process = import_rapidfuzz()
    ratio = fuzz.token_set_ratio(
        first.translate(_NOT_ASCII), second.translate(_NOT_ASCII), processor=process
    )
    return bool(round(ratio) > _ALIKE)


def reward(product: Product, price: float, chosen: Mapping[str, str], goal: Goal) -> float:
    """Compute the reward of buying a product.

    Args:
        product: The product bought.
        price: Its price in dollars.
        chosen: Values of options that were chosen, by the option's name.
        goal: The goal.

    Returns:
        In [0, 1]: the share of properties, options and price limit that are met, times
        how well the product is of the kind that was asked for (1, 0.5, 0.1 or 0).
        WebShop's own can exceed 1 where more options count than were asked for (see
        `_options_met`); it is cut there.

    Raises:
        MissingExtraError: The extra "webshop" is not installed.
    """
    met = (
        _attributes_met(product, goal.attributes)
        + _options_met(product, chosen, goal.options)
        + (price <= goal.price_limit)
    )
    asked = len(goal.attributes) + len(goal.options) + 1
    return min(1.0, met / asked * type_factor(product, goal))


def title_words(title: str) -> frozenset[str]:
    """Return an approximation of a title's nouns: its words without numbers and function words."""
    return frozenset(_WORD.findall(title.lower())) - _NOT_NOUNS


def type_factor(product: Product, goal: Goal) -> float:
    """Return how well a product matches the requested kind: 1, 0.5, 0.1 or 0."""
    wanted = title_words(goal.title)
    shared = len(wanted & title_words(product.title))
    title_score = shared / len(wanted) if wanted else _NO_NOUNS
    if title_score == 0:
        return 0.0
    if title_score < _OTHER_TYPE:
        return 0.1
    same_query = product.query == goal.query
    same_category = len(_steps(product.product_category) & _steps(goal.product_category)) >= 2
    return 1.0 if same_query or same_category or title_score > _SAME_TYPE else 0.5


def _steps(product_category: str) -> set[str]:
    return {step.strip() for step in product_category.split(STEP)}


def _said(product: Product, text: str) -> bool:
    places = (product.title, " ".join(product.features), product.description)
    return any(text in place.lower() for place in places)


def _attributes_met(product: Product, wanted: Sequence[str]) -> int:
    return sum(
        any(alike(owned, each) for owned in product.attributes) or _said(product, each)
        for each in wanted
    )


def _options_met(product: Product, chosen: Mapping[str, str], wanted: Sequence[str]) -> int:
    """Count the chosen options that are wanted.

    WebShop counts what was chosen, not what was wanted, so that it can count more than
    was asked for: a product's options that its own text names count even if unasked.
    """
    goals = [plain_colour(each) for each in wanted]
    met = 0
    for name, value in chosen.items():
        plain = plain_colour(value)
        if name.lower() in _EXACT_OPTIONS:
            found = plain in goals
        else:
            found = any(alike(each, plain) for each in goals)
        met += found or _said(product, plain)
    return met
