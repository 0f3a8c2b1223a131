"""Placeholder pages in Mind2Web's schema: for trying things out, not for scores.

All names begin with "made-up". Sites have nested lists, forms, options and attributes of
the kinds that recorded pages have.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from dataset_builders.environments.mind2web.dom import ID, TEXT, Node

MARK = "MADE_UP.txt"
SIZES = {"train": 12, "test_domain": 4}
"""Annotations of each split."""

_SITES = {
    "made-up-shop": (("lamp", "kettle", "rug", "chair"), ("Price", "Colour"), ("up", "any")),
    "made-up-trains": (("Oslo", "Porto", "Graz", "Bern"), ("Class", "Seat"), ("first", "window")),
    "made-up-library": (
        ("novel", "atlas", "score", "essay"),
        ("Sort", "Format"),
        ("date", "print"),
    ),
}


def write(folder: Path) -> None:
    """Write the placeholder data, with its ranks and a file that marks it as such.

    Raises:
        OSError: The folder cannot be written.
    """
    ranks: dict[str, list[str]] = {}
    for split, number in SIZES.items():
        records = [make_record(f"{split}-{index}") for index in range(number)]
        path = folder / "data" / split.partition("_")[0] / f"{split}_0.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records), "utf-8")
        for record in records:
            ranks |= make_ranks(record)
    (folder / "ranks.json").write_text(json.dumps(ranks), "utf-8")
    (folder / MARK).write_text("Made up by `agenttuning env setup mind2web`; no real pages.\n")


def remove(folder: Path) -> None:
    """Remove the placeholder data, which real data of the same names are to replace."""
    if is_made_up(folder):
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "ranks.json").unlink(missing_ok=True)
        (folder / MARK).unlink()


def is_made_up(folder: Path) -> bool:
    """Whether a folder holds the placeholder data."""
    return (folder / MARK).is_file()


@dataclass(slots=True)
class _Page:
    """Page builder; elements are numbered in creation order."""

    rng: random.Random
    number: int = 0
    candidates: list[Node] = field(default_factory=list)

    def node(self, tag: str, *children: Node, candidate: bool = False, **marks: str) -> Node:
        self.number += self.rng.randint(1, 9)
        node = Node(tag, {ID: str(self.number), **marks}, list(children))
        if candidate:
            self.candidates.append(node)
        return node

    def text(self, words: str) -> Node:
        node = self.node(TEXT)
        node.text = words
        return node

    def link(self, words: str, **marks: str) -> Node:
        return self.node("a", self.text(words), candidate=True, **marks)


def make_record(seed: str) -> dict[str, Any]:
    """Generate an annotated task of three steps: type, select, click.

    Args:
        seed: Any text; the same text gives the same record.
    """
    rng = random.Random(f"agenttuning/made-up/{seed}")
    site = rng.choice(sorted(_SITES))
    things, labels, options = _SITES[site]
    thing, label, option = rng.choice(things), rng.choice(labels), rng.choice(options)
    makers: list[tuple[Callable[[_Page], tuple[Node, Node]], str, str, str]] = [
        (
            lambda page: _search_page(page, things),
            "TYPE",
            thing,
            f"[searchbox]  Find -> TYPE: {thing}",
        ),
        (
            lambda page: _form_page(page, labels, options, label),
            *("SELECT", option, f"[combobox]  {label} -> SELECT: {option}"),
        ),
        (lambda page: _list_page(page, things, thing), "CLICK", "", f"[link]  {thing} -> CLICK"),
    ]
    actions, words = [], []
    for index, (make, op, value, said) in enumerate(makers):
        page = _Page(rng)
        top, target = make(page)
        actions.append(_action(f"made-up-{seed}-{index}", page, top, target, op, value))
        words.append(said)
    return {
        "annotation_id": f"made-up-{seed}",
        "website": site,
        "domain": "made-up",
        "subdomain": "made-up",
        "confirmed_task": f"Find the {thing} with {label} set to {option}.",
        "action_reprs": words,
        "actions": actions,
    }


def make_ranks(record: dict[str, Any]) -> dict[str, list[str]]:
    """Return the candidates of each step, ranked; the right ones are among the first ten."""
    ranks = {}
    for action in record["actions"]:
        step = f"{record['annotation_id']}_{action['action_uid']}"
        rng = random.Random(f"agenttuning/made-up/ranks/{step}")
        right = [each[ID] for each in action["pos_candidates"]]
        others = [each[ID] for each in action["neg_candidates"]]
        rng.shuffle(others)
        for each in right:
            others.insert(rng.randrange(min(10, len(others) + 1)), each)
        ranks[step] = others
    return ranks


def _search_page(page: _Page, things: tuple[str, ...]) -> tuple[Node, Node]:
    target = page.node(
        "input", candidate=True, type="search", placeholder="Find", aria_label="Find", name="q"
    )
    form = page.node(
        "form",
        page.node("div", page.node("label", page.text("Find")), target),
        page.node("button", page.text("Go"), candidate=True, type="submit"),
        role="search",
    )
    return _frame(page, form, things), target


def _form_page(
    page: _Page, labels: tuple[str, ...], options: tuple[str, ...], wanted: str
) -> tuple[Node, Node]:
    fields, target = [], None
    for label in labels:
        values = [page.node("option", page.text(option), value=option) for option in options]
        values[0].attributes["option_selected"] = "true"
        select = page.node("select", *values, candidate=True, name=label.lower())
        target = select if label == wanted else target
        fields.append(page.node("div", page.node("span", page.text(label)), select))
    form = page.node("form", *fields, page.node("button", page.text("Apply"), candidate=True))
    if target is None:
        raise ValueError(f"{wanted} is not one of {labels}")
    return _frame(page, form, options), target


def _list_page(page: _Page, things: tuple[str, ...], wanted: str) -> tuple[Node, Node]:
    rows, target = [], None
    for thing in things:
        icon = page.node("svg")
        icon.attributes["class"] = "icon-star"
        link = page.link(f"{thing} & more", title=f'The {thing} "{thing}"')
        target = link if thing == wanted else target
        rows.append(page.node("li", page.node("div", page.node("div", link)), icon))
    if target is None:
        raise ValueError(f"{wanted} is not one of {things}")
    return _frame(page, page.node("ul", *rows, role="list"), things), target


def _frame(page: _Page, content: Node, words: tuple[str, ...]) -> Node:
    """Build header and footer, with the content nested a few levels deep."""
    head = [page.link(word.title(), name=f"nav-{word}") for word in (*words, "help", "sign in")]
    foot = [page.link(f"{word} <{n}>", aria_label=word) for n, word in enumerate(words)]
    for _ in range(page.rng.randint(1, 4)):
        content = page.node("div", content)
    body = page.node(
        "body",
        page.node("nav", *head, role="navigation"),
        page.node("main", content, role="main"),
        page.node("footer", page.node("p", page.text("All of this is made up.")), *foot),
    )
    return page.node("html", body)


def _action(uid: str, page: _Page, top: Node, target: Node, op: str, value: str) -> dict[str, Any]:
    html = "".join(xml_of(top))
    return {
        "action_uid": uid,
        "raw_html": html,
        "cleaned_html": html,
        "operation": {"op": op, "original_op": op, "value": value},
        "pos_candidates": [_candidate(target, right=True)],
        "neg_candidates": [_candidate(n, right=False) for n in page.candidates if n is not target],
    }


def _candidate(node: Node, *, right: bool) -> dict[str, Any]:
    return {
        "tag": node.tag,
        "attributes": json.dumps(node.attributes),
        "is_original_target": right,
        "is_top_level_target": right,
        ID: node.id,
    }


def xml_of(node: Node, depth: int = 0) -> Iterator[str]:
    """Format a page as indented XML, like `cleaned_html`."""
    marks = "".join(f" {name}={quoteattr(value)}" for name, value in node.attributes.items())
    indent = "\n" + "  " * depth
    if node.tag == TEXT or not node.children:
        inside = escape(node.text)
        yield (
            f"{indent}<{node.tag}{marks}>{inside}</{node.tag}>"
            if inside
            else (f"{indent}<{node.tag}{marks}/>")
        )
        return
    yield f"{indent}<{node.tag}{marks}>"
    for child in node.children:
        yield from xml_of(child, depth + 1)
    yield f"{indent}</{node.tag}>"
