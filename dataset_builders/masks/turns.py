"""Finding the trained turns in a rendering, in three independent ways.

*Marks*: two characters that occur nowhere in the conversation are put around the words of
every trained turn and the template is rendered a second time. If the result without marks
equals the plain text, the template kept the words as they are and the marks tell where
they stand. One more rendering serves the whole conversation.

*Sentinels*, where a template changes what it is given (it drops old thoughts, say): one
turn at a time is replaced by a sentinel, and the two renderings are compared from both
ends.

*Prompts*: a turn begins where the prompt for it ends and reaches to the next end token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

from dataset_builders.errors import MaskError
from dataset_builders.masks.chat_templates import ChatTemplate, Row
from dataset_builders.masks.layout import Layout, learn_layout
from dataset_builders.masks.spans import (
    Dialogue,
    Span,
    core,
    first_of,
    mark_call,
    marked,
    num_alike,
    plain_turn,
    read_marks,
    thought_and_answer,
    unused_characters,
    with_content,
)


class TurnFinder:
    """Finds turns in the renderings of one template.

    Args:
        template: The template.
        end_tokens: Tokens that end an assistant turn.
        control_tokens: Tokens that no content spells.
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

    def by_marks(self, dialogue: Dialogue, text: str) -> list[Span] | None:
        """Spans of all trained turns; none if the template does not keep the marks.

        Raises:
            MaskError: No end token follows a turn.
        """
        found = self._words_by_marks(dialogue, text)
        if found is None:
            return None
        spans = []
        for index, where in zip(dialogue.trained, found, strict=True):
            if where.start == where.end and not _is_blank(dialogue.rows[index]):
                raise MaskError(f"message {index}: the template leaves out this trained turn")
            start = self._habit(dialogue, text, index, where.start)
            if start is None:
                spans.append(self._turn(dialogue, text, index, where))
            else:
                spans.append(Span(start, self._end(dialogue, text, index, where.end)))
        return spans

    def one_by_one(self, dialogue: Dialogue, text: str, index: int) -> Iterator[tuple[str, Span]]:
        """Spans of one turn by each way that looks at one turn alone and finds it."""
        ways: tuple[tuple[str, Callable[[Dialogue, str, int], Span]], ...] = (
            ("sentinels", self._by_sentinel),
            ("prompts", self._by_prompt),
            ("marks within", self._by_marks_within),
        )
        for name, way in ways:
            try:
                yield name, way(dialogue, text, index)
            except MaskError:
                continue

    def explain(self, dialogue: Dialogue, text: str, index: int) -> None:
        """Raise why the sentinel does not find a turn, if it does not.

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
        """Length of the prompt for a turn; none if the rendering does not begin with it."""
        try:
            prompt = self._template.text(dialogue.rows[:index], dialogue.tools, prompt=True)
        except MaskError:  # Nothing that could be prompted with comes before the turn.
            return None
        return len(prompt) if text.startswith(prompt) else None

    def _words_by_marks(self, dialogue: Dialogue, text: str) -> list[Span] | None:
        """From the first to the last of each trained turn's words."""
        marks = unused_characters(text, 2)
        for thinking in _thinking(dialogue):
            rows = list(dialogue.rows)
            counts = []
            for index in dialogue.trained:
                rows[index], count = _mark_turn(rows[index], marks, index in thinking)
                counts.append(count)
            read = read_marks(self._template.text(rows, dialogue.tools), marks)
            if read is not None and read[0] == text and len(read[1]) == sum(counts):
                found = iter(read[1])
                groups = [list(islice(found, count)) for count in counts]
                return [Span(group[0].start, group[-1].end) for group in groups]
        return None

    def _by_sentinel(self, dialogue: Dialogue, text: str, index: int) -> Span:
        words = self._words_by_sentinel(dialogue, text, index)
        start = self._start_by_prompt(dialogue, text, index, words.start)
        if start is None:
            start = self._layout.start(text, words.start, words.start)
        end = self._end(dialogue, text, index, words.end)
        return Span(words.start if start is None else start, end)

    def _words_by_sentinel(self, dialogue: Dialogue, text: str, index: int) -> Span:
        """What stands where a sentinel stands in its place, without white space around it."""
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
        if shown.start == shown.end and not _is_blank(dialogue.rows[index]):
            raise MaskError("the template leaves out this trained turn")
        return Span(start + shown.start, start + shown.end)

    def _by_prompt(self, dialogue: Dialogue, text: str, index: int) -> Span:
        start = self._start_by_prompt(dialogue, text, index, len(text))
        end = first_of(self._end_tokens, text, start) if start is not None else None
        if start is None or end is None:
            raise MaskError("the template's text before it is not the prompt for it")
        return Span(start, end.end)

    def _by_marks_within(self, dialogue: Dialogue, text: str, index: int) -> Span:
        """By marks around what the template keeps of the words, so far as that is known."""
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
        """The span of a turn whose words are found, its prompt rendered for that."""
        start = self._start_by_prompt(dialogue, text, index, words.start)
        if start is None:
            start = self._habit(dialogue, text, index, words.start)
        if start is None:
            if "tool_calls" in dialogue.rows[index]:
                raise MaskError(f"message {index}: it cannot be told where the tool call begins")
            start = words.start
        return Span(start, self._end(dialogue, text, index, words.end))

    def _start_by_prompt(self, dialogue: Dialogue, text: str, index: int, words: int) -> int | None:
        length = self.prompt_length(dialogue, text, index) if self._layout.takes_over else None
        return length if length is not None and length <= words else None

    def _habit(self, dialogue: Dialogue, text: str, index: int, words: int) -> int | None:
        """Where the turn begins by the template's habits; none if they do not tell."""
        row = dialogue.rows[index]
        if "tool_calls" in row and not row["content"].strip():
            return self._layout.start_behind_header(text, words)
        return self._layout.start(text, words, _leading(row["content"]))

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


def _thinking(dialogue: Dialogue) -> Iterator[Collection[int]]:
    """Turns in which to look for thoughts: all; those that answer the last user; none."""
    rows = dialogue.rows
    thinking = [i for i in dialogue.trained if thought_and_answer(rows[i]["content"])]
    yield thinking
    if thinking:
        last = max((i for i, row in enumerate(rows) if row["role"] == "user"), default=-1)
        recent = [index for index in thinking if index > last]
        if 0 < len(recent) < len(thinking):
            yield recent
        yield ()


def _mark_turn(row: Row, marks: Sequence[str], thinking: bool) -> tuple[Row, int]:
    """A turn with its words marked, and the number of pairs of marks."""
    content = row["content"]
    changed, count = _mark_calls(row, marks) if "tool_calls" in row else (row, 0)
    if count and not content.strip():
        return changed, count
    parts = thought_and_answer(content)
    if parts is None:
        return with_content(changed, marked(content, marks, core(content))), count + 1
    # From behind, since a mark moves what comes after it.
    for part in reversed(parts if thinking else parts[1:]):
        content = marked(content, marks, part)
        count += 1
    return with_content(changed, content), count


def _mark_calls(row: Row, marks: Sequence[str]) -> tuple[Row, int]:
    pairs = [mark_call(call, marks) for call in row["tool_calls"]]
    return {**row, "tool_calls": [call for call, _ in pairs]}, sum(count for _, count in pairs)


def _is_blank(row: Row) -> bool:
    return not row["content"].strip() and "tool_calls" not in row


def _leading(content: str) -> int:
    """Longest white space that words may begin with: the content's own or a thought's."""
    parts = thought_and_answer(content)
    if parts is None:
        return core(content).start
    return max(core(content).start, *(part.start for part in parts))
