"""Generated tasks of the support desk: a customer's message, the orders, and the right outcome."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

SPLITS = {"train": range(120), "dev": range(120, 140), "test": range(140, 200)}
"""Numbers of the tasks by split; a number is the seed of its task."""

ITEMS = {
    "kettle": 39, "lamp": 24, "backpack": 59, "blanket": 35, "teapot": 28, "radio": 45,
    "headphones": 89, "keyboard": 74, "clock": 19, "umbrella": 22, "mug": 12, "chair": 99,
}  # fmt: skip
NAMES = ("ada", "bruno", "chen", "dora", "emil", "farah", "gita", "hugo", "iris", "jonas")


@dataclass(frozen=True)
class Case:
    """A kind of task.

    Attributes:
        action: What the customer wants: "refund", "cancel", or "both" of two orders.
        refusal: The rule that forbids it, or "" where nothing does.
        status: Status of the order.
        days: Range of days since the delivery.
        damaged: Whether the item arrived damaged.
        final_sale: Whether it was a final sale.
        stranger: Whether the order is another customer's.
    """

    action: str
    refusal: str = ""
    status: str = "delivered"
    days: tuple[int, int] = (2, 29)
    damaged: bool = False
    final_sale: bool = False
    stranger: bool = False


CASES = (
    Case("refund"),
    Case("refund", "The order was delivered more than 30 days ago.", days=(32, 85)),
    Case("cancel", status="processing"),
    Case("refund", damaged=True, days=(32, 85)),
    Case("cancel", "The order is no longer processing.", status="shipped"),
    Case("both"),
    Case("refund", "The item was a final sale.", final_sale=True),
    Case("refund", damaged=True, final_sale=True),
    Case("refund", "The order was delivered more than 90 days ago.", damaged=True, days=(95, 200)),
    Case("cancel", status="processing"),
    Case("refund", "The order is not delivered yet.", status="shipped"),
    Case("refund"),
    Case("cancel", "The order belongs to another address.", status="processing", stranger=True),
)
"""Seven that may be done, and six that a rule forbids."""

MESSAGES = {
    "refund": (
        "I do not need the {item} from order {order}. Please refund it.",
        "Hello, can I get my money back for the {item} in {order}?",
        "Please refund the {item} of my order {order}. Thank you.",
    ),
    "damaged": (
        "The {item} from order {order} arrived broken. I want a refund.",
        "Hello, my {item} in {order} was damaged on arrival. Please refund it.",
        "Order {order}: the {item} came with a crack. Refund it, please.",
    ),
    "both": (
        "Please refund the {item} from order {order}, and cancel order {second}.",
        "Two things: money back for the {item} in {order}, and stop order {second}.",
        "I want to return the {item} of {order}. Also cancel {second} for me.",
    ),
    "cancel": (
        "Please cancel my order {order}.",
        "I changed my mind, cancel {order} for me.",
        "Hello, can you stop order {order}? I ordered by mistake.",
    ),
}


def make_task(number: int) -> dict[str, Any]:
    """Generate the task of a number, the same each time."""
    rng, case = random.Random(number), CASES[number % len(CASES)]
    customer, other = (f"{name}{number}@example.com" for name in rng.sample(NAMES, 2))
    names = rng.sample(sorted(ITEMS), 5)
    asked = {
        "order": f"A{number:03}{rng.randrange(5)}",
        "email": other if case.stranger else customer,
        "status": case.status,
        "items": [{"item": name, "price": ITEMS[name], "final_sale": False} for name in names[:2]],
    }
    if case.status == "delivered":
        asked["days_since_delivery"] = rng.randint(*case.days)
    item = rng.choice(asked["items"])
    item["final_sale"] = case.final_sale
    second = {
        "order": f"A{number:03}{rng.randrange(5, 10)}",
        "email": customer,
        "status": "processing" if case.action == "both" else rng.choice(("processing", "shipped")),
        "items": [{"item": name, "price": ITEMS[name], "final_sale": False} for name in names[2:4]],
    }
    orders = [asked, second]
    rng.shuffle(orders)
    message = rng.choice(MESSAGES["damaged" if case.damaged else case.action])
    return {
        "id": f"{number:03}",
        "email": customer,
        "message": message.format(item=item["item"], order=asked["order"], second=second["order"]),
        "orders": orders,
        "refund": [asked["order"], item["item"]] if case.action != "cancel" else [],
        "cancel": {"refund": "", "cancel": asked["order"], "both": second["order"]}[case.action],
        "refusal": case.refusal,
    }
