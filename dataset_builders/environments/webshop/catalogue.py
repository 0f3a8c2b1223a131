"""Read the products of a WebShop catalogue in either of its formats.

WebShop distributes `items_shuffle*.json`, an array of products, with attributes mined from them in
`items_ins_v2*.json` and human-written instructions, if any, in `items_human_ins*.json`. Its search
index holds the same products in processed form, as lines of `id`, `contents` and `product`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError
from dataset_builders.readers.compression import open_binary
from dataset_builders.readers.json_stream import BadRecord, iter_array, iter_lines

STEP = "\u203a"
"""Separator of the parts of a product category."""

_NO_PRICE = 100.0
"""Price, in dollars, of a product whose listing has none."""

_NO_ATTRIBUTES = ("DUMMY_ATTR",)
_MAX_ASIN = 10  # characters; WebShop skips products with longer ones


@dataclass(frozen=True, slots=True)
class Wish:
    """Request of a shopper who wants this product.

    Attributes:
        text: The wish, without options and price.
        attributes: Properties that it names, at least one.
        options: Values of options that it names; None if every combination is a goal.
    """

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """A product.

    Attributes:
        asin: Identifier, at most 10 characters.
        title: Name.
        description: Description; may be empty.
        features: Its bullet points.
        category: Department, such as "beauty".
        query: Search term that it was collected with, such as "console tables".
        product_category: Path in the shop's tree, parts separated by `STEP`.
        prices: Dollars: one price, or the ends of a range.
        price_tag: The price as it is shown.
        rating: The rating as it is shown.
        options: Values by the option's name, all in lower case.
        attributes: Properties mined from its texts, such as "long lasting".
        wish: The synthetic goal's words, where there are any.
        human_wishes: What people wrote.
    """

    asin: str
    title: str
    description: str
    features: tuple[str, ...]
    category: str
    query: str
    product_category: str
    prices: tuple[float, ...]
    price_tag: str
    rating: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    wish: Wish | None = None
    human_wishes: tuple[Wish, ...] = ()

    @property
    def document(self) -> str:
        """The searchable text: title, description, first feature and options."""
        options = ", and ".join(f"{name}: {', '.join(v)}" for name, v in self.options.items())
        first = self.features[0] if self.features else ""
        return " ".join([self.title, self.description, first, options]).lower()


def read_products(
    products: Path, attributes: Path, instructions: Path | None = None
) -> Iterator[Product]:
    """Read a catalogue.

    Args:
        products: `items_shuffle*.json`, or JSON lines with a `product` each; may be
            compressed.
        attributes: `items_ins_v2*.json`.
        instructions: `items_human_ins*.json`, if there is one.

    Yields:
        Products in the file's order, which WebShop's goals depend on. As in WebShop, those without
        a valid id and repeated ones are skipped.

    Raises:
        DataError: A record is invalid; the message names it.
    """
    mined = _read_mapping(attributes)
    human = _read_mapping(instructions) if instructions else {}
    seen: set[str] = set()
    for number, record in _records(products):
        where = f"{products}: record {number}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: found {type(record).__name__}, expected an object")
        asin = _text(record, "asin", where)
        if asin == "nan" or len(asin) > _MAX_ASIN or asin in seen:
            continue
        seen.add(asin)
        try:
            yield _product(record, mined.get(asin, {}), human.get(asin), where)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            found = f"{type(error).__name__}: {error}"
            raise DataError(f"{where}: product {asin}: not a WebShop product: {found}") from None


def _records(file: Path) -> Iterator[tuple[int, Any]]:
    def damaged(line: str) -> None:
        raise DataError(f"{file}: {line}")

    with open_binary(file, damaged) as handle:
        if ".jsonl" not in file.suffixes:
            yield from iter_array(handle, damaged)
            return
        for number, value in iter_lines(handle):
            if isinstance(value, BadRecord):
                raise DataError(f"{file}: line {number}: {value.reason}: {value.detail}")
            inner = value.get("product") if isinstance(value, dict) else None
            yield number, inner


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: found {type(value).__name__}, expected an object by asin")
    return value


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key}: found {type(value).__name__}, expected text")
    return value


def _product(
    record: Mapping[str, Any], mined: Mapping[str, Any], human: Any, where: str
) -> Product:
    bullets = record.get("small_description") or [""]
    prices, tag = _prices(record.get("pricing"))
    instructions = record.get("instructions") if human is None else human
    return Product(
        asin=record["asin"],
        title=_text(record, "name", where),
        description=_text(record, "full_description", where),
        features=tuple(map(str, bullets if isinstance(bullets, list) else [bullets])),
        category=_text(record, "category", where),
        query=_text(record, "query", where).lower().strip(),
        product_category=_text(record, "product_category", where),
        prices=prices,
        price_tag=tag,
        # WebShop takes ratings from a file of reviews that was never published.
        rating=str(record.get("Rating") or "N.A."),
        options=_options(record.get("customization_options")),
        attributes=tuple(mined.get("attributes", _NO_ATTRIBUTES)),
        wish=_wish(mined),
        human_wishes=tuple(_human_wishes(instructions or ())),
    )


def _prices(pricing: Any) -> tuple[tuple[float, ...], str]:
    if isinstance(pricing, str):
        parts = [re.sub(r"[^\d.]", "", part) for part in pricing.split("$")[1:]]
        pricing = [float(part) for part in parts]
    prices = tuple(float(price) for price in pricing or [_NO_PRICE])[:2]
    return prices, " to ".join(f"${price}" for price in prices)


def _options(customization: Any) -> dict[str, tuple[str, ...]]:
    options = {}
    for name, contents in (customization or {}).items():
        if contents is not None:
            values = (content["value"] for content in contents)
            options[name.lower()] = tuple(v.strip().replace("/", " | ").lower() for v in values)
    return options


def _wish(mined: Mapping[str, Any]) -> Wish | None:
    text, attributes = mined.get("instruction"), mined.get("instruction_attributes")
    return Wish(text, tuple(attributes)) if text and attributes else None


def _human_wishes(instructions: Any) -> Iterator[Wish]:
    for each in instructions:
        if each["instruction_attributes"]:
            options = tuple(each["instruction_options"])
            yield Wish(each["instruction"], tuple(each["instruction_attributes"]), options)
