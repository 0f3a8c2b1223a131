"""`agenttuning inspect`: show in colour which text the loss covers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.text import Text

from dataset_builders.conversation import Conversation
from dataset_builders.encoding.coding import Coder
from dataset_builders.encoding.engines import HuggingFaceEngine
from dataset_builders.encoding.token_rows import TokenReport, TokenRow
from dataset_builders.encoding.turn_rows import TurnRows, View
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.masks.spans import Rendered
from dataset_builders.mixing.losses import left_out_warnings
from dataset_builders.row_options import RowOptions

TRAINED_STYLE = "bold green"
LITERAL_STYLE = "red underline"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A row as the model sees it.

    Attributes:
        conversation: The messages that it shows.
        rendered: Its rendering, with spans located by two methods.
        row: Its tokens.
    """

    conversation: Conversation
    rendered: Rendered
    row: TokenRow

    def as_json(self) -> dict[str, Any]:
        """Return text, spans, literals, ids and labels as JSON-ready values."""
        return {
            "id": self.conversation.id,
            "source": self.conversation.source,
            "task": self.conversation.task,
            "text": self.rendered.text,
            "trained_spans": [list(span) for span in self.rendered.spans],
            "literal_spans": [list(span) for span in self.rendered.literals],
            "way": self.rendered.way,
            "off_prompt": self.rendered.off_prompt,
            "left_out": [list(part) for part in self.rendered.left_out],
            "input_ids": self.row.input_ids.tolist(),
            "labels": self.row.labels.tolist(),
        }

    def summary(self) -> str:
        """One readable line."""
        line = f"{self.conversation.id}: {len(self.row.input_ids)} tokens"
        line += f", {self.row.num_trained} trained"
        if self.rendered.literals:
            line += f", {len(self.rendered.literals)} control tokens in words, kept as text"
        if self.rendered.off_prompt:
            line += f", {self.rendered.off_prompt} turns off their prompt"
        return line

    def warnings(self) -> list[str]:
        """What the chat template omits from trained turns, one line each, with the remedy."""
        report = TokenReport(trained_turns=self.conversation.num_trained)
        report.leave_out(self.conversation, self.rendered.left_out)
        return left_out_warnings(self.conversation.id or "conversation", asdict(report))


def inspect(
    conversation: Conversation, tokenizer: Any, end_of_turn: Iterable[str] = ()
) -> Inspection:
    """Render and encode a conversation as one row; see `inspect_rows`."""
    options = replace(conversation.options or RowOptions(), rows="conversation")
    (row,) = inspect_rows(replace(conversation, options=options), tokenizer, end_of_turn)
    return row


def inspect_rows(
    conversation: Conversation, tokenizer: Any, end_of_turn: Iterable[str] = ()
) -> list[Inspection]:
    """Render and encode a conversation's rows, as a build does.

    Args:
        conversation: The conversation.
        tokenizer: A fast Hugging Face tokenizer with a chat template.
        end_of_turn: See `ChatRenderer`.

    Raises:
        ConfigError: The tokenizer cannot be used.
        MaskError: The conversation would be dropped; states why.
        CertificationError: Two methods of locating the trained turns disagree.
    """
    renderer = ChatRenderer(tokenizer, end_of_turn)
    if conversation.num_trained:
        views = TurnRows(renderer, RowOptions()).of(conversation, certify=True).rows
    else:
        views = [View(conversation, renderer.render(conversation, certify=True))]
    coded = Coder(tokenizer).encode([v.rendered for v in views], HuggingFaceEngine(tokenizer))
    found = []
    for view, item in zip(views, coded, strict=True):
        if isinstance(item, MaskError):
            raise item
        found.append(Inspection(view.conversation, view.rendered, item.row))
    return found


def show(rendered: Rendered, *, colour: bool = True) -> Text:
    """Show a rendered conversation, with trained text in green, or in «» without colour.

    Content that spells a control token is red, or in ⟦⟧ without colour.
    """
    if colour:
        shown = Text(rendered.text)
        for span in rendered.spans:
            shown.stylize(TRAINED_STYLE, *span)
        for literal in rendered.literals:
            shown.stylize(LITERAL_STYLE, *literal)
        return shown
    # Closing before opening, the inner before the outer: a turn may end where another begins.
    brackets = [(span.end, 1, "»") for span in rendered.spans]
    brackets += [(span.start, 2, "«") for span in rendered.spans]
    brackets += [(literal.end, 0, "⟧") for literal in rendered.literals]
    brackets += [(literal.start, 3, "⟦") for literal in rendered.literals]
    pieces: list[str] = []
    position = 0
    for place, _, bracket in sorted(brackets):
        pieces += rendered.text[position:place], bracket
        position = place
    return Text("".join((*pieces, rendered.text[position:])))
