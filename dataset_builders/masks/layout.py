"""Text that a chat template writes around the assistant's content, learned from probes.

The trained span of a turn is wider than its words: generation also has to produce what the
template puts between the prompt and the words (an empty thought, or the blank after
Llama-2's `[/INST]`) and between the words and the end token (the blank before `</s>`, or
Command-A's `<|END_RESPONSE|>`). Rendering the prompt for every turn would show this, at a cost
quadratic in the number of turns. So the template's patterns are learned once from two conversations
that differ only in their words, and a turn with other surroundings is examined individually.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import CALL_PROBE, CALL_PROBE_TOOLS, ChatTemplate, Row
from dataset_builders.masks.spans import first_of, num_alike
from dataset_builders.reasoning import with_tags

_MAX_ANCHOR = 200

_OPENING = re.compile(r"<think>\s*\Z")

_SHAPES = (
    ("user", "assistant"),
    ("user", "assistant", "user", "assistant", "user", "assistant"),
    ("system", "user", "assistant", "user", "assistant"),
)


@dataclass(frozen=True, slots=True)
class LeadIn:
    """Text that a template writes before the assistant's content.

    Attributes:
        text: End of the text before the content, the same in every conversation.
        generated: Characters at its end that generation has to produce.
        controlled: Whether a control token stands in it before those.
    """

    text: str
    generated: int
    controlled: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A template's habits.

    Attributes:
        lead_ins: What may stand before the assistant's words, the surest first.
        tails: What may stand between them and the end token, beside white space.
        ends_calls: Whether an end token follows a tool call before the next message does.
        takes_over: Whether the model takes over where a prompt ends. Not where the template
            takes no notice of being asked for a prompt, and a header stands between.
    """

    lead_ins: tuple[LeadIn, ...]
    tails: tuple[str, ...]
    ends_calls: bool
    takes_over: bool

    @property
    def _headers(self) -> Iterator[str]:
        for lead_in in self.lead_ins:
            if lead_in.controlled:
                yield lead_in.text[: len(lead_in.text) - lead_in.generated]

    def start(self, text: str, words: int, leading: int) -> int | None:
        """Return the start of the turn with content at `words`; None for an unknown lead-in.

        Args:
            text: The rendering.
            words: Position of the first character that is not white space.
            leading: White space the content begins with; a template may keep or strip it.
        """
        for back in range(leading + 1):
            position = words - back
            for lead_in in self.lead_ins:
                if text.endswith(lead_in.text, 0, position):
                    return position - lead_in.generated
            if position <= 0 or not text[position - 1].isspace():
                return None
        return None

    def start_behind_header(self, text: str, words: int) -> int | None:
        """Return the start of the turn after the last header before `words`.

        For turns that do not begin with their words, such as tool calls. Only a header with
        a control token in it can be searched for: content cannot contain one here, see
        `control_tokens`.
        """
        ends = [
            place + len(header)
            for header in self._headers
            if (place := text.rfind(header, 0, words)) >= 0
        ]
        return max(ends, default=None)

    def end(self, text: str, words: int, end_tokens: Sequence[str]) -> int | None:
        """Return the end of the end token after content that ends at `words`; None if absent."""
        position = words
        while position < len(text) and text[position].isspace():
            position += 1
        for tail in ("", *self.tails):
            if text.startswith(tail, position):
                found = first_of(end_tokens, text, position + len(tail))
                if found and found.start == position + len(tail):
                    return found.end
        return None


def learn_layout(
    template: ChatTemplate, end_tokens: Sequence[str], control_tokens: Collection[str] = ()
) -> Layout:
    """Learn a template's layout from probes; probes that it rejects teach nothing."""
    on_prompt: dict[LeadIn, None] = {}
    off_prompt: dict[LeadIn, None] = {}
    takes_over = _takes_over(template)
    for shape, thinks in product(_SHAPES, (False, True)):
        try:
            for lead_in, certain in _lead_ins(template, shape, thinks, takes_over):
                header = lead_in.text[: len(lead_in.text) - lead_in.generated]
                controlled = any(token in header for token in control_tokens)
                known = on_prompt if certain else off_prompt
                known[replace(lead_in, controlled=controlled)] = None
        except MaskError:
            continue
    endings = tuple(lead_in.text for lead_in in on_prompt)
    # Where history differs far from the turn, the text around the turn is that of a prompt.
    rest = [lead_in for lead_in in off_prompt if not lead_in.text.endswith(endings)]
    return Layout(
        tuple(sorted(on_prompt, key=_length)) + tuple(sorted(rest, key=_length)),
        tuple(_tails(template, end_tokens)),
        _ends_calls(template, end_tokens),
        takes_over,
    )


def _length(lead_in: LeadIn) -> int:
    return -len(lead_in.text)


def _probe(shape: Sequence[str], letter: str, thinks: bool = False) -> list[Row]:
    # Different first and last letters: text that two probes share is the template's.
    rows = []
    for number, role in enumerate(shape):
        words = f"{letter}{number}{letter}"
        if thinks and role == "assistant":
            # The thought comes first, so its position is the one found.
            words = with_tags(f"{letter}{number}answer{letter}", words)
        rows.append({"role": role, "content": words})
    return rows


def _lead_ins(
    template: ChatTemplate, shape: Sequence[str], thinks: bool, takes_over: bool
) -> Iterator[tuple[LeadIn, bool]]:
    """Return the lead-ins of a probe's turns, and whether each follows the turn's prompt."""
    first, second = _probe(shape, "q", thinks), _probe(shape, "z", thinks)
    texts = template.text(first), template.text(second)
    for index, row in enumerate(first):
        if row["role"] != "assistant":
            continue
        places = [
            text.find(rows[index]["content"].removeprefix("<think>\n").partition("\n")[0])
            for text, rows in zip(texts, (first, second), strict=True)
        ]
        if min(places) < 0:
            continue
        before = texts[0][: places[0]], texts[1][: places[1]]
        prompts = [template.text(rows[:index], prompt=True) for rows in (first, second)]
        gap = before[0][len(prompts[0]) :]
        certain = before[0] == prompts[0] + gap and before[1] == prompts[1] + gap
        anchor = _shared_end(*prompts) + gap if certain else _shared_end(*before)
        if certain and (takes_over or not gap.strip()):
            generated = len(gap)
        else:
            # A thought is generated by the model, whatever its prompt would have been.
            opening = _OPENING.search(anchor) if thinks else None
            generated = len(opening[0]) if opening else 0
        if anchor.strip():
            yield LeadIn(anchor, generated), certain


def _shared_end(first: str, second: str) -> str:
    length = num_alike(first[: -_MAX_ANCHOR - 1 : -1], second[: -_MAX_ANCHOR - 1 : -1])
    return first[len(first) - length :]


def _tails(template: ChatTemplate, end_tokens: Sequence[str]) -> Iterator[str]:
    """Return text between content and end token that is more than white space.

    It must also occur when the turn is the last one: text that occurs only before another message
    is that message's header.
    """
    probe = _probe(("user", "assistant", "user"), "q")
    texts = [template.text(probe)]
    try:
        texts.append(template.text(probe[:2]))
    except MaskError:
        return
    tails = []
    for text in texts:
        after = text.partition(probe[1]["content"])[2].partition(probe[2]["content"])[0]
        found = first_of(end_tokens, after, 0)
        tails.append(after[: found.start].lstrip() if found else "")
    if tails[0] and tails[0] == tails[1]:
        yield tails[0]


def _ends_calls(template: ChatTemplate, end_tokens: Sequence[str]) -> bool:
    try:
        text = template.text(template.rows(CALL_PROBE), CALL_PROBE_TOOLS)
    except MaskError:
        return False
    call = text.rfind("qvalue")
    ends = [place for word in ("qresult", "qanswer") if (place := text.find(word, call)) >= 0]
    return call >= 0 and bool(ends) and first_of(end_tokens, text, call, min(ends)) is not None


def _takes_over(template: ChatTemplate) -> bool:
    history, turn = _probe(("user", "assistant"), "q")
    prompt = template.text([history], prompt=True)
    if prompt != template.text([history]):
        return True
    text = template.text([history, turn])
    gap = text[len(prompt) : text.find(turn["content"])]
    return text.startswith(prompt) and not gap.strip()
