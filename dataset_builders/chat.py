"""Conversation and chat template to text, with the character spans that are trained.

A trained span is what the model has to generate in that turn: from its first character
up to and including the token that ends the turn. Template text between the two, such
as the blank before `</s>` in Llama-2's layout, belongs to it, since generation has to
produce it too.

Spans are found in two ways. *Marks*: two characters that occur nowhere in the
conversation are put around every trained turn and the template is rendered a second
time; if the result without marks equals the plain text, the template kept the turns as
they are and the marks tell where they stand. *Sentinels*, where a template changes what
it is given (it drops old thoughts, say): one turn at a time is replaced by a sentinel,
and the two renderings are compared from both ends. Where that changes the text before
the turn, too (a template that adds an empty thought), the turn begins where the prompt
for it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from dataset_builders.chat_templates import check_tokenizer, template_message
from dataset_builders.conversation import Conversation, Message
from dataset_builders.errors import ConfigError, MaskError

_PRIVATE_USE = range(0xE000, 0xF8FF)


class Span(NamedTuple):
    """Half-open range of characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: What the tokenizer sees; special tokens are written out.
        spans: Trained ranges of `text`, in order, without overlap.
        literals: Ranges where a conversation's own words spell a control token, such as
            `<|im_end|>` quoted by a user. They have to be encoded as the characters they
            are, or data could open a turn. In order, without overlap.
    """

    text: str
    spans: tuple[Span, ...]
    literals: tuple[Span, ...] = ()


class ChatRenderer:
    """Renders conversations with a tokenizer's chat template.

    Attributes:
        end_tokens: Tokens that end an assistant turn: the tokenizer's eos token and
            `end_of_turn`. Generation has to stop at each of them.

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
        # A text would otherwise be taken as its characters.
        end_of_turn = (end_of_turn,) if isinstance(end_of_turn, str) else tuple(end_of_turn)
        self._tokenizer = tokenizer
        self._name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        check_tokenizer(tokenizer, self._name)
        for token in end_of_turn:
            if len(tokenizer.encode(token, add_special_tokens=False)) != 1:
                raise ConfigError(
                    f"end of turn: found {token!r}, expected one token of {self._name}: "
                    "generation stops at tokens"
                )
        self.end_tokens = tuple(dict.fromkeys([tokenizer.eos_token, *end_of_turn]))
        try:
            self._check_end_tokens()
        except MaskError as error:
            raise ConfigError(
                f"{self._name}: the chat template cannot render plain user and assistant "
                f"turns: {error}"
            ) from error

    def prompt(self, messages: Sequence[Message]) -> str:
        """Text up to where the assistant's next turn begins.

        Raises:
            MaskError: The template refuses the messages; carries its own words.
        """
        return self._text(messages, add_generation_prompt=True)

    def render(self, conversation: Conversation) -> Rendered:
        """Render a conversation and locate its trained turns.

        Raises:
            MaskError: The template refuses the conversation, or a trained turn cannot be
                located in its rendering, or no end-of-turn token follows one.
        """
        messages = conversation.messages
        text = self._text(messages)
        trained = [i for i, message in enumerate(messages) if message.trained]
        spans = self._spans_by_marks(messages, text, trained)
        if spans is None:
            spans = [self._span_by_sentinel(messages, text, index) for index in trained]
        return Rendered(
            text,
            tuple(
                self._include_end(text, span, messages[index], index)
                for span, index in zip(spans, trained, strict=True)
            ),
        )

    def _text(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        import jinja2

        try:
            text = self._tokenizer.apply_chat_template(
                [template_message(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
        except (jinja2.TemplateError, TypeError, KeyError, IndexError) as error:
            raise MaskError(f"the chat template refuses the conversation: {error}") from error
        return str(text)

    def _spans_by_marks(
        self, messages: Sequence[Message], text: str, trained: Sequence[int]
    ) -> list[Span] | None:
        if any(messages[index].tool_calls for index in trained):
            return None  # a call is part of the turn, but lies outside of its content
        # Around the whole content first: white space at its edges is the model's own
        # words. A template that strips content is then given marks inside of them.
        whole = dict.fromkeys(trained, 0)
        if spans := self._try_marks(messages, text, whole, strip_end=False):
            return spans
        skips = {index: _lead(messages[index].content) for index in trained}
        spans = self._try_marks(messages, text, skips)
        # Not every template strips all of it, nor every turn alike.
        for index, lead in skips.items() if spans else ():
            content = messages[index].content
            newlines = len(content) - len(content.lstrip("\n"))
            for skip in (0, newlines) if newlines < lead else (0,) if lead else ():
                if found := self._try_marks(messages, text, skips | {index: skip}):
                    skips, spans = skips | {index: skip}, found
                    break
        return spans

    def _try_marks(
        self,
        messages: Sequence[Message],
        text: str,
        skips: Mapping[int, int],
        strip_end: bool = True,
    ) -> list[Span] | None:
        """Spans of the turns, marked from the given character on; none if that alters the text."""
        opening, closing = marks = _unused_characters(text, 2)
        marked = list(messages)
        for index, skip in skips.items():
            role, content = messages[index].role, messages[index].content
            end = max(skip, len(content.rstrip())) if strip_end else len(content)
            content = f"{content[:skip]}{opening}{content[skip:end]}{closing}{content[end:]}"
            marked[index] = Message(role, content, trained=True)
        read = _read_marks(self._text(marked), marks)
        if read is None or read.text != text or len(read.spans) != len(skips):
            return None
        return list(read.spans)

    def _span_by_sentinel(self, messages: Sequence[Message], text: str, index: int) -> Span:
        message = messages[index]
        if message.tool_calls:
            return self._span_of_call(messages, text, index)
        (sentinel,) = _unused_characters(text, 1)
        replaced = list(messages)
        replaced[index] = Message(message.role, sentinel, message.trained)
        other = self._text(replaced)
        before, found, after = other.partition(sentinel)
        if not found or not text.endswith(after):
            raise MaskError(
                f"message {index}: the template's text around it depends on its content, "
                "so the trained turn cannot be located"
            )
        end = len(text) - len(after)
        start = len(before) if text.startswith(before) else self._start(messages, text, index)
        if end <= start:
            raise MaskError(f"message {index}: the template leaves out this trained turn")
        return Span(start, end)

    def _span_of_call(self, messages: Sequence[Message], text: str, index: int) -> Span:
        start = self._start(messages, text, index)
        ends = [text.find(token, start) for token in self.end_tokens]
        end = min((position for position in ends if position >= 0), default=start)
        return Span(start, end)

    def _start(self, messages: Sequence[Message], text: str, index: int) -> int:
        """Where the prompt for a turn ends: there the model takes over."""
        history = messages[:index]
        prompt = self._text(history, add_generation_prompt=True)
        # A prompt without the turn's header would have the header trained.
        if not text.startswith(prompt) or prompt == self._text(history):
            raise MaskError(
                f"message {index}: the template's text before it is not the prompt for it, "
                "so the trained turn cannot be located"
            )
        return len(prompt)

    def _include_end(self, text: str, span: Span, message: Message, index: int) -> Span:
        position = span.end
        while position < len(text) and text[position].isspace():
            position += 1
        for token in self.end_tokens:
            if text.startswith(token, position):
                return Span(span.start, position + len(token))
        raise MaskError(
            f"message {index}: no end-of-turn token follows the {message.role} turn, "
            f"found {text[span.end : span.end + 20]!r}, expected {' or '.join(self.end_tokens)}"
        )

    def _check_end_tokens(self) -> None:
        probe = (
            Message("user", "1"),
            Message("assistant", "2", trained=True),
            Message("user", "3"),
        )
        text = self._text(probe)
        (span,) = self._spans_by_marks(probe, text, [1]) or [self._span_by_sentinel(probe, text, 1)]
        rest = text[span.end :].lstrip()
        if any(rest.startswith(token) for token in self.end_tokens):
            return
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


def _unused_characters(text: str, count: int) -> list[str]:
    used = set(text)
    free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
    found = list(islice(free, count))
    if len(found) < count:
        raise MaskError("the conversation uses all private-use characters, none is left as a mark")
    return found


def _lead(content: str) -> int:
    return len(content) - len(content.lstrip())


def _read_marks(marked: str, marks: Sequence[str]) -> Rendered | None:
    """Text without marks and what stood between each pair; none if they do not pair up."""
    plain: list[str] = []
    spans: list[Span] = []
    length = 0
    for number, piece in enumerate(marked.split(marks[0])):
        if number:
            inside, closed, outside = piece.partition(marks[1])
            if not closed or marks[1] in outside:
                return None
            spans.append(Span(length, length + len(inside)))
            piece = inside + outside
        elif marks[1] in piece:
            return None
        plain.append(piece)
        length += len(piece)
    return Rendered("".join(plain), tuple(spans))
