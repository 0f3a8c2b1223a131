"""Locate the trained turns in a rendering by three independent methods.

*Marks*: two characters that occur nowhere in the conversation are put around the words of
every trained turn and the template is rendered a second time. If the result without marks
equals the plain text, the template kept the words unchanged and the marks show where they are. One
more rendering serves the whole conversation.

*Sentinels*, for a template that changes its input (it drops old thoughts, say): one
turn at a time is replaced by a sentinel, and the two renderings are compared from both
ends.

*Prompts*: a turn begins where the prompt for it ends and reaches to the next end token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import ChatTemplate, Row
from dataset_builders.masks.layout import Layout, learn_layout
from dataset_builders.masks.marking import Found, Kind, Places, find_places
from dataset_builders.masks.prompt_tails import PromptTails, is_opening
from dataset_builders.masks.skeletons import Skeletons
from dataset_builders.masks.spans import (
    Dialogue,
    Span,
    core,
    first_of,
    is_blank,
    leading,
    mark_call,
    marked,
    num_alike,
    plain_turn,
    read_marks,
    unused_characters,
    with_content,
    words_of,
)


class TurnFinder:
    """Locates trained turns in the renderings of one template.

    Args:
        template: The template.
        end_tokens: Tokens that end an assistant turn.
        control_tokens: Tokens that no content contains.
    """

    def __init__(
        self,
        template: ChatTemplate,
        end_tokens: Sequence[str],
        control_tokens: Collection[str] = (),
    ) -> None:
        self._template = template
        self._end_tokens = end_tokens
        self._layout: Layout = learn_layout(template, end_tokens, control_tokens)
        self._tails = PromptTails(template)
        self._skeletons = Skeletons(template)
        self._last: tuple[Dialogue, Places | None] | None = None

    def by_marks(self, dialogue: Dialogue, text: str) -> Found | None:
        """Locate all trained turns; None if the template does not preserve the marks.

        Raises:
            MaskError: The template omits a turn or writes another message within it,
                or no end token follows it.
        """
        places = self._places(dialogue, text)
        return None if places is None else self._found(dialogue, text, places)

    def by_skeleton(self, dialogue: Dialogue, text: str) -> Found | None:
        """All trained turns, without a second rendering; none if marks have to tell.

        Raises:
            MaskError: As in `by_marks`.
        """
        places = self._skeletons.places(dialogue, text)
        return None if places is None else self._found(dialogue, text, places)

    def _found(self, dialogue: Dialogue, text: str, places: Places) -> Found:
        spans, left_out = [], []
        for index in dialogue.trained:
            words = places.words(index)
            if words is None:
                raise MaskError(f"message {index}: the template omits this trained turn")
            span = Span(
                self._start(dialogue, text, index, places, words),
                self._end(dialogue, text, index, words.end),
            )
            other = places.inside(span, index)
            if other is not None:
                raise MaskError(
                    f"message {index}: the template writes message {other} within this trained turn"
                )
            spans.append(span)
            missing = dict.fromkeys(places.missing(index))
            if "call" in missing:
                raise MaskError(f"message {index}: the template omits a tool call", "left_out")
            left_out += [(index, kind) for kind in missing]
        return Found(spans, left_out)

    def _places(self, dialogue: Dialogue, text: str) -> Places | None:
        """Return the parts' positions; cached, since each turn of a conversation needs them."""
        if self._last is None or self._last[0] is not dialogue:
            self._last = dialogue, find_places(self._template, dialogue, text)
        return self._last[1]

    def _start(self, dialogue: Dialogue, text: str, index: int, places: Places, words: Span) -> int:
        kind = places.first_kind(index)
        behind = places.end_of(index - 1) if index else None
        after_tool = index > 0 and dialogue.rows[index - 1]["role"] == "tool"
        start = None
        if kind != "call" and not after_tool:
            start = self._layout.start(text, words.start, leading(dialogue.rows[index]))
        if start is None and behind is not None and behind <= words.start:
            start = self._start_behind(dialogue, text, index, Span(behind, words.start), kind)
        if start is None or (behind is not None and start < behind):
            start = self._turn_start(dialogue, text, index, words.start)
        return start

    def _start_behind(
        self, dialogue: Dialogue, text: str, index: int, gap: Span, kind: Kind, known: bool = True
    ) -> int | None:
        """Return the start of a turn in the template's text after the message before it."""
        if not self._layout.takes_over:
            return gap.end if kind == "words" else None
        start = self._tails.start(text[gap.start : gap.end], dialogue, index, kind, known)
        return None if start is None else gap.start + start

    def one_by_one(self, dialogue: Dialogue, text: str, index: int) -> Iterator[tuple[str, Span]]:
        """Return the spans of one turn by each method that locates a single turn."""
        ways: tuple[tuple[str, Callable[[Dialogue, str, int], Span]], ...] = (
            ("sentinels", self._by_sentinel),
            ("prompts", self._by_prompt),
            ("ends of prompts", self._by_prompt_end),
            ("marks within", self._by_marks_within),
        )
        for name, way in ways:
            try:
                yield name, way(dialogue, text, index)
            except MaskError:
                continue

    def explain(self, dialogue: Dialogue, text: str, index: int) -> None:
        """Raise why the sentinel method does not locate a turn, if it does not.

        Raises:
            MaskError: The template's text around the turn depends on its words, or it
                leaves them out, or no end token follows them.
        """
        try:
            self._by_sentinel(dialogue, text, index)
        except MaskError as error:
            start = "" if str(error).startswith("message") else f"message {index}: "
            raise MaskError(f"{start}{error}, so the trained turn cannot be located") from error

    def prompt_length(self, dialogue: Dialogue, text: str, index: int) -> int | None:
        """Return the length of a turn's prompt; None if the rendering does not begin with it."""
        try:
            prompt = self._template.text(dialogue.rows[:index], dialogue.tools, prompt=True)
        except MaskError:  # Nothing that could be prompted with comes before the turn.
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _by_sentinel(self, dialogue: Dialogue, text: str, index: int) -> Span:
        words = self._words_by_sentinel(dialogue, text, index)
        start = self._start_by_prompt(dialogue, text, index, words.start)
        if start is None and index and dialogue.rows[index - 1]["role"] == "tool":
            with suppress(MaskError):
                start = self._by_prompt_end(dialogue, text, index).start
        if start is None:
            start = self._layout.start(text, words.start, words.start)
        end = self._end(dialogue, text, index, words.end)
        span = Span(words.start if start is None else start, end)
        places = self._places(dialogue, text)
        if places is not None and places.inside(span, index) is not None:
            # A tool's result that is written within the turn goes with the call.
            raise MaskError("the template's text around it depends on its content")
        return span

    def _words_by_sentinel(self, dialogue: Dialogue, text: str, index: int) -> Span:
        """Return the range that a sentinel replaces, without surrounding white space."""
        (sentinel,) = unused_characters(text, 1)
        rows = list(dialogue.rows)
        rows[index] = plain_turn(sentinel)
        before, found, after = self._template.text(rows, dialogue.tools).partition(sentinel)
        if not found or not text.endswith(after):
            raise MaskError("the template's text around it depends on its content")
        end = len(text) - len(after)
        start: int | None = len(before)
        if not text.startswith(before):
            start = self._start_by_prompt(dialogue, text, index, end)
            if start is None:
                alike = num_alike(text, before)
                start = self._layout.start_behind_header(text, alike)
        if start is None or end < start:
            raise MaskError("the template's text before it is not the prompt for it")
        shown = core(text[start:end])
        if shown.start == shown.end and not is_blank(dialogue.rows[index]):
            raise MaskError("the template omits this trained turn")
        return Span(start + shown.start, start + shown.end)

    def _by_prompt(self, dialogue: Dialogue, text: str, index: int) -> Span:
        start = self._start_by_prompt(dialogue, text, index, len(text))
        end = first_of(self._end_tokens, text, start) if start is not None else None
        if start is None or end is None:
            raise MaskError("the template's text before it is not the prompt for it")
        return Span(start, end.end)

    def _by_prompt_end(self, dialogue: Dialogue, text: str, index: int) -> Span:
        """Locate a turn by its own prompt's text after the preceding message."""
        places = self._places(dialogue, text) if index else None
        words = places.words(index) if places else None
        behind = places.end_of(index - 1) if places else None
        if places is None or words is None or behind is None or behind > words.start:
            raise MaskError("the words before it cannot be located")
        kind = places.first_kind(index)
        gap = Span(behind, words.start)
        start = self._start_behind(dialogue, text, index, gap, kind, known=False)
        end = first_of(self._end_tokens, text, words.end)
        if start is None or end is None:
            raise MaskError("the template's text before it is not the prompt for it")
        return Span(start, end.end)

    def _by_marks_within(self, dialogue: Dialogue, text: str, index: int) -> Span:
        """Locate a turn by marks within the part of its content that the template keeps."""
        row = dialogue.rows[index]
        marks = unused_characters(text, 2)
        if "tool_calls" in row:
            changed, count = _mark_calls(row, marks)
        else:
            shown = self._words_by_sentinel(dialogue, text, index)
            kept = text[shown.start : shown.end]
            # Templates drop thoughts, which come first.
            place = row["content"].rfind(kept)
            if place < 0:
                raise MaskError("the template writes the words in another way")
            inner = Span(place, place + len(kept))
            changed, count = with_content(row, marked(row["content"], marks, inner)), 1
        rows = list(dialogue.rows)
        rows[index] = changed
        read = read_marks(self._template.text(rows, dialogue.tools), marks)
        if read is None or read[0] != text or len(read[1]) != count:
            raise MaskError("the template does not keep marks within the words")
        return self._turn(dialogue, text, index, Span(read[1][0].start, read[1][-1].end))

    def _turn(self, dialogue: Dialogue, text: str, index: int, words: Span) -> Span:
        """Return the span of a turn whose content is located, rendering its prompt."""
        start = self._turn_start(dialogue, text, index, words.start)
        return Span(start, self._end(dialogue, text, index, words.end))

    def _turn_start(self, dialogue: Dialogue, text: str, index: int, words: int) -> int:
        start = self._start_by_prompt(dialogue, text, index, words)
        if start is None:
            start = self._habit(dialogue, text, index, words)
        if start is None:
            if "tool_calls" in dialogue.rows[index]:
                raise MaskError(f"message {index}: the start of the tool call cannot be located")
            start = words
        return start

    def _start_by_prompt(self, dialogue: Dialogue, text: str, index: int, words: int) -> int | None:
        length = self.prompt_length(dialogue, text, index) if self._layout.takes_over else None
        if length is None or length <= words:
            return length
        # The prompt may open the thought that the turn begins with.
        return length if is_opening(text[words:length]) else None

    def _habit(self, dialogue: Dialogue, text: str, index: int, words: int) -> int | None:
        """Return the start of a turn by the learned layout; None if that is inconclusive."""
        row = dialogue.rows[index]
        if "tool_calls" in row and not words_of(row).strip():
            return self._layout.start_behind_header(text, words)
        return self._layout.start(text, words, leading(row))

    def _end(self, dialogue: Dialogue, text: str, index: int, words: int) -> int:
        if "tool_calls" in dialogue.rows[index]:
            found = first_of(self._end_tokens, text, words) if self._layout.ends_calls else None
            end = found.end if found else None
        else:
            end = self._layout.end(text, words, self._end_tokens)
        if end is None:
            raise MaskError(
                f"message {index}: no end-of-turn token follows the assistant turn, "
                f"found {text[words : words + 20]!r}, expected {' or '.join(self._end_tokens)}"
            )
        return end


def _mark_calls(row: Row, marks: Sequence[str]) -> tuple[Row, int]:
    pairs = [mark_call(call, marks) for call in row["tool_calls"]]
    return {**row, "tool_calls": [call for call, _ in pairs]}, sum(count for _, count in pairs)
