"""Text of the shop's pages: WebShop's "text" mode, as in AgentInstruct's rows.

The visible parts of a page are joined by `[SEP]`. The text equals that of AgentInstruct's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset_builders.environments.webshop.catalogue import Product

PAGE_SIZE = 10
"""Products per page of results."""

SEPARATOR = " [SEP] "
SEARCH = "search"
BACK = "back to search"
PREVIOUS = "< prev"
NEXT = "next >"
BUY = "buy now"
SUBPAGES = ("description", "features", "reviews")
ATTRIBUTES = "attributes"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the shop.

    Attributes:
        text: Visible text.
        buttons: Clickable values other than options, in lower case.
        options: The option's name by value; of two options with a value in common the
            later one is chosen by it, as in WebShop.
        has_search_bar: Whether it is the search page.
    """

    text: str
    buttons: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    has_search_bar: bool = False

    @property
    def actions(self) -> dict[str, Any]:
        """The available actions, as AgentBench shows them to the model."""
        clickables = list(dict.fromkeys([*self.buttons, *self.options]))
        return {"has_search_bar": self.has_search_bar, "clickables": clickables}


def search_page(instruction: str) -> Page:
    """Return the page on which an episode starts."""
    return Page(_join("WebShop", *_asked(instruction), "Search"), (SEARCH,), has_search_bar=True)


def results_page(instruction: str, found: Sequence[Product], number: int, total: int) -> Page:
    """Return a page of results.

    Args:
        instruction: The goal's.
        found: Products on this page.
        number: Of the page, from 1.
        total: Products found in all.
    """
    turns = [PREVIOUS] if number > 1 else []
    turns += [NEXT] if number * PAGE_SIZE < total else []
    shown = ["Back to Search", f"Page {number} (Total results: {total})"]
    shown += [{PREVIOUS: "< Prev", NEXT: "Next >"}[turn] for turn in turns]
    for product in found:
        shown += [product.asin, product.title, product.price_tag]
    buttons = (BACK, *turns, *(product.asin.lower() for product in found))
    return Page(_join(*_asked(instruction), *shown), buttons)


def item_page(instruction: str, product: Product, *, attributes: bool) -> Page:
    """Return a product's page.

    Args:
        instruction: The goal's.
        product: The product.
        attributes: Whether there is a button for the mined properties.
    """
    shown = ["Back to Search", "< Prev"]
    for name, values in product.options.items():
        shown += [name, *values]
    subpages = (*SUBPAGES, ATTRIBUTES) if attributes else SUBPAGES
    shown += [product.title, f"Price: {product.price_tag}", f"Rating: {product.rating}"]
    shown += [*(name.capitalize() for name in subpages), "Buy Now"]
    options = {value: name for name, values in product.options.items() for value in values}
    return Page(_join(*_asked(instruction), *shown), (BACK, PREVIOUS, *subpages, BUY), options)


def subpage(instruction: str, product: Product, name: str) -> Page:
    """Return a detail page of a product: one of `SUBPAGES`, or `ATTRIBUTES`."""
    content = {
        "description": [product.description],
        "features": list(product.features),
        "reviews": ["No reviews found"],
        ATTRIBUTES: [
            *product.attributes,
            product.category,
            product.query,
            product.product_category,
        ],
    }[name]
    shown = _join(*_asked(instruction), "Back to Search", "< Prev", *content)
    return Page(shown, (BACK, PREVIOUS))


def _asked(instruction: str) -> tuple[str, str]:
    return "Instruction:", instruction


def _join(*texts: str) -> str:
    return SEPARATOR.join(text.strip() for text in texts)
