"""A WebShop catalogue that is made up, in the shape WebShop hands out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KINDS = ("lamp", "kettle", "scarf", "mug", "stool")
ADJECTIVES = ("oaken", "woollen", "enamel", "folding", "quiet", "sturdy", "striped")


def product(number: int) -> dict[str, Any]:
    kind = KINDS[number % len(KINDS)]
    return {
        "asin": f"B{number:05d}",
        "name": f"Nordlys {ADJECTIVES[number % 7].title()} {kind.title()} Model {number}",
        "full_description": f"A {kind} & more.",
        "pricing": ("", "$12.5", "$1,003.00$1,100.00")[number % 3],
        "images": ["none.jpg"],
        "small_description": [f"made in batch {number}", "durable"],
        "customization_options": {
            "Color": [{"value": "Red"}, {"value": "Teal/Grey"}],
            "Size": [{"value": "small"}, {"value": "large"}],
        },
        "product_category": f"Home › Living › {kind}s",  # noqa: RUF001
        "category": "garden",
        "query": f"{kind}s",
    }


def mined(record: dict[str, Any]) -> dict[str, Any]:
    number = int(record["asin"][1:])
    properties = [ADJECTIVES[number % 7], "durable"]
    text = f"Find me {', '.join(properties)} {record['query']} of batch {number}"
    return {
        "attributes": [*properties, "handmade"],
        "instruction": text,
        "instruction_attributes": properties,
    }


def write_catalogue(folder: Path, records: list[dict[str, Any]], name: str = "_1000") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"items_shuffle{name}.json").write_text(json.dumps(records), "utf-8")
    attributes = {record["asin"]: mined(record) for record in records}
    (folder / f"items_ins_v2{name}.json").write_text(json.dumps(attributes), "utf-8")
    return folder


def write_small_catalogue(folder: Path) -> Path:
    """450 products with 4 combinations each: 1,800 goals, 300 past WebShop's first 1,500."""
    records = [product(number) for number in range(450)]
    for record in records[60:]:
        record["customization_options"] = {"Size": [{"value": f"{n} cm"} for n in range(4)]}
    return write_catalogue(folder, records)
