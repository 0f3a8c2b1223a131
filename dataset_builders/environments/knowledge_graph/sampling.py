"""Sample questions from a slice: draw a program, execute it, phrase it.

Every topic entity belongs to one split, by the hash of its identifier. So no entity that a
training question starts from starts a question of dev or test, and no program of one split
occurs in another. The answers computed here, by looking up edges, equal what the calls find in the
graph by SPARQL; the two implementations are independent.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_builders.environments.knowledge_graph import wording
from dataset_builders.environments.knowledge_graph.facts import Facts
from dataset_builders.environments.knowledge_graph.questions import Question, writable
from dataset_builders.environments.knowledge_graph.relations import phrase

SIZES = {"train": 2500, "dev": 100, "test": 150}
"""Questions per split; fewer if a slice does not yield as many."""

_SHARES = (("train", 80), ("dev", 88), ("test", 100))  # Upper bounds, in hundredths.
_MAX_ANSWERS = 40
_MAX_BETWEEN = 25
_PATIENCE = 400  # Consecutive failed draws after which a slice counts as exhausted.
_NAMELESS = re.compile(r"Q\d+")  # Wikidata identifier in place of a name.
# Relations private to Freebase users, or about records.
_UNASKED = ("user.", "dataworld.", "common.topic.")


@dataclass(frozen=True, slots=True)
class _Program:
    text: str
    topics: tuple[str, ...]
    calls: tuple[str, ...]
    answers: frozenset[str]


def split_of(entity: str) -> str:
    """Return the split in which an entity may be a topic."""
    number = int(hashlib.sha256(entity.encode()).hexdigest(), 16) % 100
    return next(split for split, end in _SHARES if number < end)


def sample_questions(facts: Facts, split: str, size: int | None = None) -> tuple[Question, ...]:
    """Draw the questions of a split.

    Args:
        facts: The slice.
        split: "train", "dev" or "test".
        size: How many; `SIZES[split]` if absent.

    Returns:
        Different programs, cycling through the kinds; identical for the same slice on every
        machine. Fewer than `size` if the slice does not yield as many.
    """
    sampler = _Sampler(facts, split)
    questions: dict[tuple[str, ...], Question] = {}
    size = SIZES[split] if size is None else size
    spent: set[str] = set()
    while len(questions) < size and len(spent) < len(KINDS):
        for kind in KINDS:
            if kind in spent or len(questions) == size:
                continue
            program = sampler.draw(kind, questions)
            if program is None:
                spent.add(kind)
                continue
            entities = {facts.labels[topic]: topic for topic in program.topics}
            questions[program.calls] = Question(
                program.text, kind, entities, program.calls, program.answers
            )
    return tuple(questions.values())


class _Sampler:
    def __init__(self, facts: Facts, split: str) -> None:
        self.facts = facts
        # String seeds are hashed by SHA-512, not by the salted hash().
        self.rng = random.Random(f"agenttuning/knowledge_graph/{split}")
        self.topics = _topics(facts, split)
        self._heads: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for topic in self.topics:
            for relation in self.asked(topic):
                for tail in facts.edges[topic][relation]:
                    self._heads[facts.ranges[relation], tail].append((topic, relation))

    def draw(self, kind: str, known: Mapping[tuple[str, ...], object]) -> _Program | None:
        """Draw a new program of a kind; None if none is found."""
        for _ in range(_PATIENCE if self.topics else 0):
            program = _DRAWS[kind](self)
            if program is not None and program.calls not in known:
                return program
        return None

    def asked(self, entity: str) -> list[str]:
        """Return the relations of an entity that questions may use."""
        return _told_apart(
            name for name in self.facts.edges.get(entity, {}) if not name.startswith(_UNASKED)
        )

    def start(self) -> tuple[str, str, tuple[str, ...]] | None:
        """Draw a topic, a relation and its tails except the topic itself."""
        topic = self.rng.choice(self.topics)
        relation = self.rng.choice(self.asked(topic))
        tails = tuple(tail for tail in self.facts.edges[topic][relation] if tail != topic)
        return (topic, relation, tails) if tails else None

    def partner(self, kind: str, tail: str) -> tuple[str, str]:
        """Draw a topic and a relation with the given range that leads to a tail."""
        return self.rng.choice(self._heads[kind, tail])

    def name(self, entity: str) -> str:
        return self.facts.labels[entity]


def _topics(facts: Facts, split: str) -> list[str]:
    bearers = defaultdict(list)
    for entity, label in facts.labels.items():
        bearers[label].append(entity)
    return [
        entity
        for label, (entity, *others) in sorted(bearers.items())
        if not others
        and writable(label)
        and not _NAMELESS.fullmatch(label)
        and split_of(entity) == split
        and _told_apart(
            name for name in facts.edges.get(entity, {}) if not name.startswith(_UNASKED)
        )
    ]


def _told_apart(names: Iterable[str]) -> list[str]:
    """Return those with a unique wording: a question must mean one relation."""
    by_words = defaultdict(list)
    for name in names:
        by_words[phrase(name)].append(name)
    return [same[0] for same in by_words.values() if len(same) == 1]


def _first_step(name: str, relation: str) -> tuple[str, ...]:
    return f"get_relations({name})", f"get_neighbors({name}, {relation})"


def _fits(answers: Iterable[str]) -> frozenset[str] | None:
    found = frozenset(answers)
    return found if 1 <= len(found) <= _MAX_ANSWERS else None


def _one_hop(sampler: _Sampler) -> _Program | None:
    start = sampler.start()
    answers = _fits(start[2]) if start else None
    if start is None or answers is None:
        return None
    topic, relation, _ = start
    name = sampler.name(topic)
    text = wording.ask_one(sampler.rng, name, relation)
    return _Program(text, (topic,), _first_step(name, relation), answers)


def _two_hop(sampler: _Sampler) -> _Program | None:
    start = sampler.start()
    if start is None or len(start[2]) > _MAX_BETWEEN:
        return None
    topic, first, _ = start
    # The topic itself may be an intermediate node, and is in the graph's answer too.
    between = sampler.facts.edges[topic][first]
    choices = _told_apart(sorted({name for each in between for name in sampler.asked(each)}))
    if not choices:
        return None
    second = sampler.rng.choice(choices)
    reached = {
        tail for each in between for tail in sampler.facts.edges.get(each, {}).get(second, ())
    }
    answers = _fits(reached - {topic})
    if answers is None:
        return None
    name = sampler.name(topic)
    text = wording.ask_two(sampler.rng, name, first, second)
    calls = (*_first_step(name, first), "get_relations(#0)", f"get_neighbors(#0, {second})")
    return _Program(text, (topic,), calls, answers)


def _intersection(sampler: _Sampler) -> _Program | None:
    start = sampler.start()
    if start is None:
        return None
    topic, first, tails = start
    kind = sampler.facts.ranges[first]
    other, second = sampler.partner(kind, sampler.rng.choice(tails))
    theirs = sampler.facts.edges[other][second]
    answers = _fits(set(tails) & set(theirs) - {topic, other})
    # If one set contains the other, half of the program would suffice.
    if other == topic or answers is None or len(answers) in (len(tails), len(theirs)):
        return None
    names = sampler.name(topic), sampler.name(other)
    text = wording.ask_shared(sampler.rng, names, first, second)
    calls = (*_first_step(names[0], first), *_first_step(names[1], second), "intersection(#0, #1)")
    return _Program(text, (topic, other), calls, answers)


def _count(sampler: _Sampler) -> _Program | None:
    start = sampler.start()
    if start is None or len(start[2]) < 2:
        return None
    topic, relation, tails = start
    name = sampler.name(topic)
    text = wording.ask_many(sampler.rng, name, relation)
    calls = (*_first_step(name, relation), "count(#0)")
    return _Program(text, (topic,), calls, frozenset({str(len(tails))}))


def _extreme(sampler: _Sampler, *, largest: bool) -> _Program | None:
    start = sampler.start()
    if start is None or len(start[2]) < 2:
        return None
    topic, relation, tails = start
    attribute, best = _single_best(sampler, tails, largest)
    if not attribute:
        return None
    name = sampler.name(topic)
    text = wording.ask_most(sampler.rng, name, relation, attribute, largest=largest)
    tool = "argmax" if largest else "argmin"
    calls = (*_first_step(name, relation), "get_attributes(#0)", f"{tool}(#0, {attribute})")
    return _Program(text, (topic,), calls, frozenset({best}))


def _single_best(sampler: _Sampler, tails: Sequence[str], largest: bool) -> tuple[str, str]:
    """Return an attribute with a unique extreme among the tails; "" if there is none."""
    attributes = _told_apart(
        name
        for name, values in sampler.facts.degrees.items()
        if not values.keys().isdisjoint(tails)
    )
    sampler.rng.shuffle(attributes)
    for attribute in attributes:
        values = sampler.facts.degrees[attribute]
        ranked = sorted((values[tail], tail) for tail in tails if tail in values)
        if largest:
            ranked.reverse()
        if len(ranked) > 1 and ranked[0][0] != ranked[1][0]:
            return attribute, ranked[0][1]
    return "", ""


_DRAWS: dict[str, Callable[[_Sampler], _Program | None]] = {
    "one_hop": _one_hop,
    "two_hop": _two_hop,
    "intersection": _intersection,
    "count": _count,
    "argmax": lambda sampler: _extreme(sampler, largest=True),
    "argmin": lambda sampler: _extreme(sampler, largest=False),
}

KINDS = tuple(_DRAWS)
"""Kinds of sampled questions."""
