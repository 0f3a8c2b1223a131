"""A support desk: an agent reads a customer's message, looks up orders, and refunds or cancels.

The rules of the desk are in the prompt only: the tools do what they are called for, so a model can
break a rule. An episode is scored by the state that it leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from support_tasks import SPLITS, make_task

from agenttuning_plugin import ToolEnvironment, tool

RULES = """\
You work at the support desk of a shop. Handle the customer's message by these rules:
- Act only on orders of the customer's own address.
- Refund an item of a delivered order, at most 30 days after the delivery.
- Refund an item that arrived damaged up to 90 days after the delivery.
- Refund no final sale, unless it arrived damaged.
- Cancel an order only while it is processing.
- Where a rule forbids what the customer wants, change nothing.
Then close the ticket as solved or refused, and answer the customer in one sentence."""


def describe(order: Mapping[str, Any]) -> str:
    """Return an order as a line, such as "A0021, delivered 12 days ago: kettle, mug"."""
    goods = (item["item"] + " (final sale)" * item["final_sale"] for item in order["items"])
    days = order.get("days_since_delivery")
    when = f" {days} days ago" if days else ""
    return f"{order['order']}, {order['status']}{when}: {', '.join(goods)}"


class SupportDesk(ToolEnvironment):
    """Refunds and cancellations of a small shop."""

    name = "support_desk"
    round_limit = 8

    def tasks(self, split: str) -> Sequence[Mapping[str, Any]]:
        return [make_task(number) for number in SPLITS[split]]

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        self.task, self.outcome = task, ""
        self.orders = {order["order"]: order for order in task["orders"]}
        self.refunded: set[tuple[str, str]] = set()
        self.cancelled: set[str] = set()
        return [
            {"role": "system", "content": RULES},
            {"role": "user", "content": f"From: {task['email']}\n\n{task['message']}"},
        ]

    @tool
    def find_orders(self, email: str) -> str:
        """List a customer's orders.

        Args:
            email: Address of the customer.
        """
        found = [order for order in self.orders.values() if order["email"] == email]
        return "\n".join(map(describe, found)) or f"No orders of {email}."

    @tool
    def refund_item(self, order: str, item: str) -> str:
        """Refund one item of an order.

        Args:
            order: Number of the order.
            item: Name of the item.
        """
        if item not in [each["item"] for each in self.orders.get(order, {"items": ()})["items"]]:
            return f"Order {order} has no item {item}."
        self.refunded.add((order, item))
        return f"Refunded {item} of order {order}."

    @tool
    def cancel_order(self, order: str) -> str:
        """Cancel an order.

        Args:
            order: Number of the order.
        """
        if order not in self.orders:
            return f"There is no order {order}."
        self.cancelled.add(order)
        return f"Cancelled order {order}."

    @tool
    def close_ticket(self, outcome: Literal["solved", "refused"]) -> str:
        """Close the ticket.

        Args:
            outcome: How it ended.
        """
        self.outcome = outcome
        return f"Ticket closed as {outcome}."

    def score(self) -> float:
        task = self.task
        if task["refusal"]:
            return float((self.refunded, self.cancelled, self.outcome) == (set(), set(), "refused"))
        refunds = {tuple(task["refund"])} if task["refund"] else set()
        cancelled = {task["cancel"]} if task["cancel"] else set()
        done = (self.refunded, self.cancelled, self.outcome)
        return float(done == (refunds, cancelled, "solved"))

    def solution(self) -> Iterator[Any]:
        task = self.task
        yield "find_orders", {"email": task["email"]}
        if task["refund"] and not task["refusal"]:
            order, item = task["refund"]
            yield "refund_item", {"order": order, "item": item}
        if task["cancel"] and not task["refusal"]:
            yield "cancel_order", {"order": task["cancel"]}
        yield "close_ticket", {"outcome": "refused" if task["refusal"] else "solved"}
        yield f"I am sorry. {task['refusal']}" if task["refusal"] else "Done, as you asked."
