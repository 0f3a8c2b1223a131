"""Collect the rows of encoded conversations, and count what is kept, cut and dropped."""

from __future__ import annotations

from collections.abc import Sequence

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.coding import Coded, Coder
from dataset_builders.encoding.engines import Engine
from dataset_builders.encoding.fitting import Fitted, Fitter
from dataset_builders.encoding.token_rows import Origin, TokenReport
from dataset_builders.encoding.turn_rows import View, Views
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer


class Account:
    """The rows of a chunk of conversations, and their counts.

    Attributes:
        rows: The rows so far.
        origins: Where each row comes from.

    Args:
        renderer: Renders prompts, to compare rows with.
        coder: Encodes these prompts.
        fitter: Makes rows fit.
        engine: The engine that encodes.
        report: Receives the counts.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        coder: Coder,
        fitter: Fitter,
        engine: Engine,
        report: TokenReport,
    ) -> None:
        self.rows: list[Coded] = []
        self.origins: list[Origin] = []
        self._renderer = renderer
        self._coder = coder
        self._fitter = fitter
        self._engine = engine
        self._report = report

    def add(
        self, conversation: Conversation, views: Views, items: Sequence[Coded | MaskError]
    ) -> None:
        """Add the rows of a conversation.

        Args:
            conversation: The conversation.
            views: What its rows show.
            items: The same rows encoded, or why one cannot be.

        Raises:
            DataError: A row is too long, and the policy is "raise".
        """
        errors = [item for item in items if isinstance(item, MaskError)]
        if len(errors) == len(items):
            self._report.drop(errors[0].reason, conversation, str(errors[0]))
            return
        self._report.trained_turns += conversation.num_trained
        self._report.count_length(
            max(len(item.row.input_ids) for item in items if isinstance(item, Coded))
        )
        if views.by_turn:
            self._add_by_turn(conversation, views, items)
        else:
            (item,) = items
            assert isinstance(item, Coded)
            self._add_whole(conversation, views.rows[0], item)

    def _add_whole(self, conversation: Conversation, view: View, item: Coded) -> None:
        report = self._report
        fitted = self._fitter.fit(item, conversation)
        if fitted.outcome in ("too_long", "no_trained_token_left"):
            report.drop(fitted.outcome, conversation, fitted.detail)
            return
        if fitted.outcome == "split":
            report.split += 1
            report.pieces += len(fitted.rows)
        report.turns_removed += fitted.turns_removed
        self._keep(conversation, [(view, item, fitted)], 1 if fitted.outcome == "split" else 0)

    def _add_by_turn(
        self, conversation: Conversation, views: Views, items: Sequence[Coded | MaskError]
    ) -> None:
        report = self._report
        kept: list[tuple[View, Coded, Fitted]] = []
        lost: list[tuple[str, int, str]] = [
            ("turns_refused", 1, f"message {index}: {error}") for index, error in views.refused
        ]
        for view, item in zip(views.rows, items, strict=True):
            trained = view.conversation.num_trained
            if isinstance(item, MaskError):
                lost.append(("turns_refused", trained, str(item)))
                continue
            fitted = self._fitter.fit(item, view.conversation, by_turn=True)
            if fitted.rows:
                kept.append((view, item, fitted))
                report.turns_removed += fitted.turns_removed
            else:
                lost.append((fitted.outcome, trained, fitted.detail))
        if not kept:
            reason, _, detail = lost[-1]
            report.drop(reason, conversation, detail)
            return
        for reason, turns, detail in lost:
            report.lose(reason, conversation, turns, detail)
        report.by_turn += 1
        report.turn_rows += sum(len(fitted.rows) for _, _, fitted in kept)
        self._keep(conversation, kept, 1)

    def _keep(
        self, conversation: Conversation, kept: list[tuple[View, Coded, Fitted]], first: int
    ) -> None:
        report = self._report
        report.kept += 1
        if self._renderer.writes_reasoning_as_text:
            report.reasoning_as_text += sum(bool(m.reasoning) for m in conversation.messages)
        rows: list[Coded] = []
        for view, item, fitted in kept:
            report.leave_out(view.conversation, item.rendered.left_out)
            report.reasoning_masked += item.rendered.reasoning_masked
            report.history_cut += view.cut
            report.shortened += fitted.outcome == "shortened"
            report.truncated += fitted.outcome == "truncated"
            if item.rendered.certified:
                report.off_prompt += self._off_prompt(view.conversation, item)
            rows += fitted.rows
        report.certified += all(item.rendered.certified for _, item, _ in kept)
        numbers = range(first, first + len(rows)) if first else [0]
        self.origins += (Origin.of(conversation, number) for number in numbers)
        self.rows += rows

    def _off_prompt(self, conversation: Conversation, coded: Coded) -> int:
        """Count trained turns whose row does not begin with the ids of their prompt."""
        messages, prompts = conversation.messages, []
        for end in (number for number, message in enumerate(messages) if message.trained):
            try:
                prompts.append(self._renderer.render_prompt(messages[:end], conversation.tools))
            except MaskError:  # There is no prompt before the turn.
                continue
        masked = coded.rendered.reasoning_masked > 0
        off = self._coder.off_prompt(coded.row, prompts, self._engine, masked)
        return off + conversation.num_trained - len(prompts)
