"""Render conversations with a chat template, with the character spans that are trained on.

A trained span is what the model has to generate in that turn: from the end of its prompt up to and
including the end-of-turn token. Template text between the two, such as the blanks around a turn in
Llama-2's layout or an empty thought, belongs to it, since generation has to produce it too.

The text is always the template's own output. Turns are located by marks, or for plain conversations
by the template's skeleton (see `skeletons`), certified by a second method (see `turns` and
`certification`), and content that spells a control token is distinguished from the token (see
`control_tokens`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import CertificationError, ConfigError, MaskError
from dataset_builders.masks.certification import certify as certify_spans
from dataset_builders.masks.certification import check_spans, find_twice
from dataset_builders.masks.chat_templates import ChatTemplate, check_tokenizer, parse_tools
from dataset_builders.masks.completeness import TemplateCompleteness
from dataset_builders.masks.control_tokens import ControlTokens, EscapedTokens, RestoredText
from dataset_builders.masks.history import rewrites_history
from dataset_builders.masks.marking import missing_words
from dataset_builders.masks.reasoning import AS_TEXT
from dataset_builders.masks.reasoning_mask import mask_reasoning
from dataset_builders.masks.spans import Dialogue, Rendered, Span, Way
from dataset_builders.masks.turns import TurnFinder

__all__ = ["ChatRenderer", "Rendered", "Span"]


class ChatRenderer:
    """Renders conversations with a tokenizer's chat template.

    Attributes:
        end_tokens: Tokens that end an assistant turn: the tokenizer's eos token and
            `end_of_turn`. Generation has to stop at each of them.
        control_tokens: Tokens that the content of messages must not contain; an assistant's content
            may contain those around thoughts and calls.

    Args:
        tokenizer: A fast Hugging Face tokenizer with a chat template.
        end_of_turn: Further tokens that end a turn (Axolotl's `eot_tokens`), for
            templates whose terminator is not the tokenizer's eos token.

    Raises:
        ConfigError: The tokenizer has no chat template, is not a fast one, has no eos
            token, or its template ends the assistant's turn with something that
            generation would not stop at.
    """

    def __init__(self, tokenizer: Any, end_of_turn: Iterable[str] = ()) -> None:
        # A string would otherwise be iterated as characters.
        end_of_turn = (end_of_turn,) if isinstance(end_of_turn, str) else tuple(end_of_turn)
        self._tokenizer = tokenizer
        self._name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        check_tokenizer(tokenizer, self._name)
        for token in end_of_turn:
            if len(tokenizer.encode(token, add_special_tokens=False)) != 1:
                raise ConfigError(
                    f"end of turn: found {token!r}, expected one token of {self._name}: "
                    "generation stops at single tokens"
                )
        self.end_tokens = tuple(dict.fromkeys([tokenizer.eos_token, *end_of_turn]))
        self._template = ChatTemplate(tokenizer)
        self._check_shown = TemplateCompleteness(self._template)
        try:
            self._control = ControlTokens(tokenizer, self._template, self.end_tokens)
            self._finder = TurnFinder(self._template, self.end_tokens, self._control.foreign)
            self._check_end_tokens()
        except MaskError as error:
            raise ConfigError(
                f"{self._name}: the chat template cannot render plain user and assistant "
                f"turns: {error}"
            ) from error
        self.control_tokens = self._control.tokens

    @property
    def writes_reasoning_as_text(self) -> bool:
        """Whether reasoning is rendered as `<think>` text because the template does not read it."""
        return self._template.reasoning_form == AS_TEXT

    @cached_property
    def rewrites_history(self) -> bool:
        """Whether the template may render a past turn differently from the current one.

        Determined with conversations of several kinds, see `history.PROBES`.
        """
        return rewrites_history(self)

    def text_until(self, conversation: Conversation, index: int) -> str:
        """Return the rendering of a conversation that ends with a given message.

        Raises:
            MaskError: The template rejects it.
        """
        rows = self._template.rows(conversation.messages[: index + 1])
        return self._template.text(rows, parse_tools(conversation.tools))

    def prompt(self, messages: Sequence[Message], tools: str = "") -> str:
        """Return the text up to where the assistant's next turn begins.

        Raises:
            MaskError: The template rejects the messages; includes its own message.
        """
        return self._template.text(self._template.rows(messages), parse_tools(tools), prompt=True)

    def render_prompt(self, messages: Sequence[Message], tools: str = "") -> Rendered:
        """Render a generation prompt; no spans, but with literals.

        Args:
            messages: Messages so far, the last one not the assistant's.
            tools: JSON text of the list of function schemas, or "".

        Raises:
            MaskError: The template rejects the messages, or a control token in their content cannot
                be located.
        """
        rows, schemas = self._template.rows(messages), parse_tools(tools)
        text = self._template.text(rows, schemas, prompt=True)
        disguise = self._control.disguise(rows, schemas, text)
        if disguise is None:
            return Rendered(text, ())
        return Rendered(text, (), self._lift(disguise, text, prompt=True)[1].literals)

    def render(self, conversation: Conversation, certify: bool = False) -> Rendered:
        """Render a conversation and locate its trained turns.

        Args:
            conversation: The conversation.
            certify: Whether to confirm the spans by a second method, at the cost of two more
                renderings per trained turn. If the fast method loses a mark, this is always done.

        Raises:
            MaskError: The template rejects the conversation, omits a part of it or its tools, ends
                a trained turn without an end-of-turn token, or a trained turn or a control token in
                the content cannot be located. `reason` states which.
            CertificationError: Two methods of locating the trained turns disagree.
        """
        messages = conversation.messages
        rows, tools = self._template.rows(messages), parse_tools(conversation.tools)
        text = self._template.text(rows, tools)
        disguise = self._control.disguise(rows, tools, text)
        shown, lifted = text, RestoredText(text, (), ())
        if disguise is not None:
            shown, lifted = self._lift(disguise, text)
            rows, tools = disguise.rows, disguise.tools
        trained = tuple(i for i, message in enumerate(messages) if message.trained)
        try:
            rendered = self._locate(Dialogue(rows, trained, tools), shown, certify)
        except CertificationError as error:
            label = conversation.where or conversation.id or "conversation"
            raise CertificationError(f"{self._name}: {label}: {error}") from error
        if disguise is not None:
            spans = tuple(map(lifted.move, rendered.spans))
            rendered = replace(rendered, text=text, spans=spans, literals=lifted.literals)
        if conversation.options is not None and conversation.options.mask_reasoning:
            rendered = mask_reasoning(rendered, messages)
        return rendered

    def _lift(
        self, disguise: EscapedTokens, text: str, prompt: bool = False
    ) -> tuple[str, RestoredText]:
        """Return the escaped rendering, and the same with the original spellings restored."""
        shown = self._template.text(disguise.rows, disguise.tools, prompt=prompt)
        lifted = disguise.lift(shown)
        if lifted.text != text:
            listed = ", ".join(map(repr, disguise.spellings.values()))
            raise MaskError(
                f"the conversation spells {listed}, and the template changes it, "
                "so it cannot be distinguished from the control token",
                "control_token",
            )
        return shown, lifted

    def _locate(self, dialogue: Dialogue, text: str, certify: bool) -> Rendered:
        way: Way = "marks"
        # Where it is certified, the marks are set in any case and compared.
        found = None if certify else self._finder.by_skeleton(dialogue, text)
        if found is None:  # A skeleton holds all contents.
            self._check_shown(dialogue.rows, dialogue.tools, text)
            found = self._finder.by_marks(dialogue, text)
        if found is None:
            way, certify = "sentinels", True
            spans = find_twice(self._finder, dialogue, text)
            left_out = [
                (index, kind)
                for index, span in zip(dialogue.trained, spans, strict=True)
                for kind in missing_words(dialogue.rows[index], text[span.start : span.end])
            ]
        else:
            spans, left_out = found.spans, found.left_out
        check_spans(text, dialogue, spans, self.end_tokens)
        if certify and way == "marks":
            certify_spans(self._finder, dialogue, text, spans)
        off_prompt = 0
        if certify:
            prompts = (self._finder.prompt_length(dialogue, text, i) for i in dialogue.trained)
            off_prompt = sum(
                length != span.start for length, span in zip(prompts, spans, strict=True)
            )
        return Rendered(text, tuple(spans), (), way, certify, off_prompt, tuple(left_out))

    def _check_end_tokens(self) -> None:
        probe = [
            {"role": "user", "content": "1"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "3"},
        ]
        text = self._template.text(probe)
        if "2" not in text.partition("1")[2]:
            raise MaskError("it leaves the assistant's words out")
        if self._ends_a_turn(Dialogue(probe, (1,)), text):
            return
        rest = text.partition("1")[2].partition("2")[2].lstrip()
        special = sorted(self._tokenizer.get_added_vocab(), key=len, reverse=True)
        found = next((token for token in special if token and rest.startswith(token)), "")
        if found:
            raise ConfigError(
                f"{self._name}: the chat template ends the assistant's turn with {found!r}, but "
                f"eos_token is {self._tokenizer.eos_token!r}: generation would not stop there. "
                f"Set special_tokens: {{eos_token: {found!r}}} or eot_tokens: [{found!r}]"
            )
        raise ConfigError(
            f"{self._name}: the chat template ends the assistant's turn without a token that "
            f"generation stops at: found {rest[:20]!r}, expected {' or '.join(self.end_tokens)}"
        )

    def _ends_a_turn(self, dialogue: Dialogue, text: str) -> bool:
        try:
            return self._finder.by_marks(dialogue, text) is not None
        except MaskError:
            return False
