"""Divide a conversation into rows that show each trained turn what inference shows.

Most chat templates write a past turn as they wrote it when it was the current one. Then one row
holds a whole conversation, and every trained turn in it follows exactly the text that it is
generated from. Where a template rewrites the past, or a harness cuts it (`keep_last_turns`), a turn
needs a row that ends with it. Turns that a longer row shows as well share that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.history_cut import keep_last_turns
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.history import follows_prompt, rewritten_turns
from dataset_builders.masks.spans import Rendered
from dataset_builders.row_options import RowOptions


class View(NamedTuple):
    """What one row shows of a conversation.

    Attributes:
        conversation: The messages shown; those trained in this row are marked as trained.
        rendered: Their rendering.
        cut: Whether turns of the history are omitted.
    """

    conversation: Conversation
    rendered: Rendered
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Views:
    """The rows of a conversation, before they are encoded.

    Attributes:
        rows: At least one.
        by_turn: Whether the rows were made turn by turn.
        refused: Message and reason of each trained turn that is in no row.
    """

    rows: list[View]
    by_turn: bool = False
    refused: tuple[tuple[int, MaskError], ...] = ()


class TurnRows:
    """Makes the rows of conversations.

    Args:
        renderer: Renders conversations.
        default: Options of conversations whose source sets none.
    """

    def __init__(self, renderer: ChatRenderer, default: RowOptions) -> None:
        self._renderer = renderer
        self._default = default

    def of(self, conversation: Conversation, certify: bool = False) -> Views:
        """Render the rows of a conversation that has a trained turn.

        Args:
            conversation: The conversation.
            certify: See `ChatRenderer.render`.

        Raises:
            MaskError: It gives no row.
            CertificationError: Two methods of locating the trained turns disagree.
        """
        options = conversation.options or self._default
        if options.rows == "conversation":
            return Views([View(conversation, self._renderer.render(conversation, certify))])
        turns = [i for i, message in enumerate(conversation.messages) if message.trained]
        if options.rows == "auto" and not _cuts(conversation, turns[-1], options):
            whole = self._renderer.render(conversation, certify)
            if not self._is_rewritten(conversation, whole):
                return Views([View(conversation, whole)])
            views = self._by_turn(conversation, turns, options, certify)
            # A turn that cannot stand at the end is trained where it can.
            return Views([View(conversation, whole)]) if views.refused else views
        return self._by_turn(conversation, turns, options, certify)

    def _is_rewritten(self, conversation: Conversation, whole: Rendered) -> bool:
        if not self._renderer.rewrites_history:
            return False
        return next(rewritten_turns(self._renderer, conversation, whole), None) is not None

    def _by_turn(
        self,
        conversation: Conversation,
        turns: Sequence[int],
        options: RowOptions,
        certify: bool,
    ) -> Views:
        if conversation.options is None:
            acting = [message.role == "assistant" for message in conversation.messages]
            options = replace(options, opening_turns=sum(acting[: turns[0]]))
            conversation = replace(conversation, options=options)
        views: list[View] = []
        refused: list[tuple[int, MaskError]] = []
        for index in turns:
            shown = _shown_until(conversation, index, options)
            try:
                rendered = self._renderer.render(shown, certify)
            except MaskError as error:
                refused.append((index, error))
                continue
            views.append(View(shown, rendered, len(shown.messages) <= index))
        if not views:
            raise refused[0][1]
        if options.rows == "auto":
            views = self._joined(views, certify)
        return Views(views, True, tuple(refused))

    def _joined(self, views: list[View], certify: bool) -> list[View]:
        """Join rows whose turns may stand in a longer row as well; keeps the order."""
        rows: list[View] = []
        while views:
            longest = views.pop()
            row, joined = self._join(longest, views, certify)
            rows.append(row)
            views = [view for view in views if all(view is not other for other in joined)]
        return rows[::-1]

    def _join(
        self, longest: View, views: Sequence[View], certify: bool
    ) -> tuple[View, Sequence[View]]:
        """Train further turns in a row, and return it with the rows that it replaces."""
        others = [view for view in views if _is_within(longest, view)]
        trained = [*map(_turn_of, others), _turn_of(longest)]
        conversation = _with_trained(longest.conversation, set(trained))
        try:
            rendered = self._renderer.render(conversation, certify)
        except MaskError:
            return longest, ()
        joined: list[View] = []
        off_prompt = longest.rendered.off_prompt
        for index, span, view in zip(trained[:-1], rendered.spans[:-1], others, strict=True):
            if view.rendered.text.startswith(rendered.text[: span.end]):
                off_prompt += view.rendered.off_prompt
                joined.append(view)
            elif _left_out(rendered, index) <= _left_out(view.rendered, index) and (
                follows_prompt(self._renderer, conversation, index, rendered.text, span)
            ):
                joined.append(view)
        kept = {_turn_of(view) for view in (*joined, longest)}
        spans = zip(trained, rendered.spans, strict=True)
        rendered = replace(
            rendered,
            spans=tuple(span for index, span in spans if index in kept),
            off_prompt=off_prompt,
            left_out=tuple(item for item in rendered.left_out if item[0] in kept),
            reasoning_masked=sum(v.rendered.reasoning_masked for v in (*joined, longest)),
        )
        return View(_with_trained(conversation, kept), rendered, longest.cut), joined


def _cuts(conversation: Conversation, last: int, options: RowOptions) -> bool:
    """Whether `keep_last_turns` omits messages before the last trained turn."""
    return len(_context(conversation, last, options)) < last


def _context(conversation: Conversation, index: int, options: RowOptions) -> tuple[Message, ...]:
    before = conversation.messages[:index]
    if options.keep_last_turns is None:
        return before
    return keep_last_turns(before, options.keep_last_turns, options.opening_turns)


def _shown_until(conversation: Conversation, index: int, options: RowOptions) -> Conversation:
    """Return what inference shows for a turn, with the turn itself, the only trained one."""
    context = tuple(
        replace(message, trained=False) if message.trained else message
        for message in _context(conversation, index, options)
    )
    return replace(conversation, messages=(*context, conversation.messages[index]))


def _with_trained(conversation: Conversation, trained: set[int]) -> Conversation:
    messages = tuple(
        replace(message, trained=index in trained)
        for index, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=messages)


def _is_within(longest: View, view: View) -> bool:
    """Whether a row's messages begin with those of another row."""
    messages, others = view.conversation.messages, longest.conversation.messages
    last = len(messages) - 1
    return (
        last < len(others) - 1
        and others[:last] == messages[:last]
        and others[last] == replace(messages[last], trained=others[last].trained)
    )


def _turn_of(view: View) -> int:
    return len(view.conversation.messages) - 1


def _left_out(rendered: Rendered, index: int) -> set[str]:
    return {kind for message, kind in rendered.left_out if message == index}
