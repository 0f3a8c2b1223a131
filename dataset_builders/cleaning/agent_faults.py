"""Known faults of AgentInstruct's rows: found, counted, and repaired or dropped on request.

They are those of issues 218 and 221 of neulab/agent-data-protocol (an audit of May 2026), as far as
a rule can find them:

- `terminal_sequences`: observations of `os` hold colours, window titles and prompts of a terminal.
- `earlier_task`: rows of `os` begin with a solved task, counting the files of /etc, before their
  own. These turns are not trained; they are a demonstration that every row repeats.
- `foreign_thought`: answers of `mind2web` whose thought, or typed value, is about another task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from dataset_builders.cleaning.terminal import has_sequences, plain_output
from dataset_builders.readers.building import RecordDroppedError, Turn

Step = Literal["strip_terminal_sequences", "remove_earlier_task", "drop_foreign_thoughts"]
"""Name of a step, as in `clean:` of a source."""

_FIRST_TASK = "Now, my problem is:"
_NEXT_TASK = re.compile(r"\ANow, I will start a new problem in a new OS\. My problem is:\s*")

_QUESTION = "What should be the next action?"
_PARTS = re.compile(
    r"\A\s*(?:Thought:)?(?P<thought>.*?)(?:\n\s*Answer:.*?)?(?:\n\s*Value:(?P<value>[^\n]*).*)?\Z",
    re.DOTALL,
)
_WORD = re.compile(r"[a-z0-9]+")
_MIN_WORDS = 2
_MAX_KNOWN = 0.34
"""A thought of at least two content words, of which at most a third occur on the page or in the
task, is about another task. Chosen by reading; see benchmarks/agentinstruct_faults.py."""

# Words of any thought about a page, beside the words of English that carry no topic.
_GENERAL = """
about above action actions after again all allow allows already also and any appears are
available based because been before behind being below both box bring brings browse browsing
but button can cannot choice choices choose click clicked clicking code come contains content
continue correct could current directly displayed does done down during each either element
elements ensure enter entered entering every field fill filled filter filtering finally first
for form found from get given go going has have help helps here how however html icon
immediately indicate indicates information input into its just last lead leads let like likely
link links list listed look looking made make makes many matches may mentioned menu might more
most move much must navigate near need needed needs next none not now off once one only open
option options other our out over own page per perform please possible previous proceed
proceeding provide provided provides relate related relates relevant required result results
same search searching see seem seems seen select selected selecting selection set should show
shown shows since site some sort sorting specific specified step steps still submit such task
term text than that the their then there therefore these they this those through too toward
towards try trying type typed typing under until upon use used useful user using value very
via view want wants was way webpage website well what when where whether which while who why
will with without would yes yet you your
"""


def find(turns: Sequence[Turn]) -> dict[str, int]:
    """Count the known faults of a row.

    Returns:
        Number of turns with `terminal_sequences`; 1 for `earlier_task` and `foreign_thought`; only
        those that it has.
    """
    counts = {
        "terminal_sequences": sum(map(_is_raw_terminal, turns)),
        "earlier_task": int(own_task(turns) > 0),
        "foreign_thought": int(has_foreign_thought(turns)),
    }
    return {name: count for name, count in counts.items() if count}


def repair(
    turns: list[Turn], trained: Sequence[bool], steps: Sequence[Step]
) -> tuple[list[Turn], dict[str, int]]:
    """Apply steps to a row.

    Args:
        turns: Its turns.
        trained: Whether each is trained, by its place; no trained turn is removed.
        steps: Names of steps.

    Returns:
        The turns, and the number of turns that each step removed or altered.

    Raises:
        RecordDroppedError: `foreign_thought`, with `drop_foreign_thoughts`.
    """
    changes: dict[str, int] = {}
    if "drop_foreign_thoughts" in steps and has_foreign_thought(turns):
        raise RecordDroppedError(
            "foreign_thought", "conversations: found an answer about another task than its prompt"
        )
    if "remove_earlier_task" in steps and not any(trained[: own_task(turns)]):
        shorter = remove_earlier_task(turns)
        changes["remove_earlier_task"] = len(turns) - len(shorter)
        turns = shorter
    if "strip_terminal_sequences" in steps:
        changes["strip_terminal_sequences"] = sum(map(_is_raw_terminal, turns))
        turns = strip_terminal_sequences(turns)
    return turns, changes


def strip_terminal_sequences(turns: list[Turn]) -> list[Turn]:
    """Remove terminal sequences and titled prompts from user turns that have any."""
    return [
        turn._replace(content=plain_output(turn.content)) if _is_raw_terminal(turn) else turn
        for turn in turns
    ]


def _is_raw_terminal(turn: Turn) -> bool:
    return turn.role == "user" and has_sequences(turn.content)


def own_task(turns: Sequence[Turn]) -> int:
    """Return the place of the turn that begins a row's own task after a solved one, or 0."""
    places = [
        place
        for place, turn in enumerate(turns)
        if place and turn.role == "user" and _NEXT_TASK.match(turn.content)
    ]
    return places[-1] if places else 0


def remove_earlier_task(turns: list[Turn]) -> list[Turn]:
    """Remove the solved task before a row's own one, which takes its place in the first turn.

    A row whose first turn does not state its task in AgentInstruct's words is left unchanged.
    """
    place = own_task(turns)
    head, mark, _ = turns[0].content.partition(_FIRST_TASK) if place else ("", "", "")
    if not mark:
        return turns
    task = _NEXT_TASK.sub("", turns[place].content)
    return [turns[0]._replace(content=f"{head}{mark}\n\n{task}"), *turns[place + 1 :]]


def is_foreign(prompt: str, answer: str) -> bool:
    """Whether an answer of Mind2Web is about another task than its prompt.

    Args:
        prompt: The page, the task, earlier actions and choices.
        answer: Thought, letter, action and value.
    """
    if _QUESTION not in prompt:
        return False
    found = _PARTS.match(answer)
    known = _stems(prompt)
    typed = _stems(found["value"] or "") if found else set()
    if typed and not typed & known:
        return True
    topic = (_stems(found["thought"]) if found else set()) - _GENERAL_STEMS
    return len(topic) >= _MIN_WORDS and len(topic & known) <= _MAX_KNOWN * len(topic)


def has_foreign_thought(turns: Sequence[Turn]) -> bool:
    """Whether a row has an answer about another task."""
    return any(
        before.role == "user"
        and turn.role == "assistant"
        and is_foreign(before.content, turn.content)
        for before, turn in pairwise(turns)
    )


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in _WORD.findall(text.lower()) if len(word) > 2}


def _stem(word: str) -> str:
    """Cut an English ending, so that "filtering" and "filters" are one word."""
    for ending in ("ing", "ied", "ies", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


_GENERAL_STEMS = frozenset(map(_stem, _GENERAL.split()))
