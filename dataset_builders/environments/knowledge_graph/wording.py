"""Question templates, filled with the words of relations."""

from __future__ import annotations

import random

from dataset_builders.environments.knowledge_graph.relations import phrase, type_words

_ONE = (
    "What is the {p} of {x}?",
    "Which {p} does {x} have?",
    "Name the {p} of {x}.",
    "For the {t} {x}, what is the {p}?",
    "Tell me every {p} that is recorded for {x}.",
    "{x}: which {p} is recorded?",
)
_TWO = (
    "What is the {q} of the {p} of {x}?",
    "Take the {p} of {x}. What {q} does it have?",
    "Which {q} do you reach from {x} by way of its {p}?",
    "Name the {q} belonging to the {p} of the {t} {x}.",
)
_SHARED = (
    "Which {p} do {x} and {y} have in common?",
    "What {p} is recorded for {x} and also for {y}?",
    "{x} and {y} share which {p}?",
)
_BOTH = (
    "What is the {p} of {x} and at the same time the {q} of {y}?",
    "Which {p} of {x} is also the {q} of {y}?",
    "Find what is both {p} of {x} and {q} of {y}.",
)
_MANY = (
    "How many entries does {x} have as {p}?",
    "Count the {p} of {x}: how many are there?",
    "What is the number of different {p} recorded for the {t} {x}?",
)
_MOST = (
    "Of the {p} of {x}, which has the {most} entries as {q}?",
    "Among the {p} of {x}, name the one with the {most} {q} entries.",
    "Which {p} of the {t} {x} counts the {most} entries under {q}?",
)


def ask_one(rng: random.Random, name: str, relation: str) -> str:
    """Ask for what a relation leads to."""
    return _fill(rng, _ONE, x=name, p=phrase(relation), t=type_words(relation))


def ask_two(rng: random.Random, name: str, first: str, second: str) -> str:
    """Ask for what two relations in a row lead to."""
    return _fill(rng, _TWO, x=name, p=phrase(first), q=phrase(second), t=type_words(first))


def ask_shared(rng: random.Random, names: tuple[str, str], first: str, second: str) -> str:
    """Ask for what two entities share."""
    x, y = names
    if first == second:
        return _fill(rng, _SHARED, x=x, y=y, p=phrase(first))
    return _fill(rng, _BOTH, x=x, y=y, p=phrase(first), q=phrase(second))


def ask_many(rng: random.Random, name: str, relation: str) -> str:
    """Ask for the number of what a relation leads to."""
    return _fill(rng, _MANY, x=name, p=phrase(relation), t=type_words(relation))


def ask_most(rng: random.Random, name: str, relation: str, attribute: str, *, largest: bool) -> str:
    """Ask for the one of many with the largest or smallest attribute."""
    return _fill(
        rng,
        _MOST,
        x=name,
        p=phrase(relation),
        q=phrase(attribute),
        t=type_words(relation),
        most="most" if largest else "fewest",
    )


def _fill(rng: random.Random, forms: tuple[str, ...], **words: str) -> str:
    return rng.choice(forms).format(**words)
