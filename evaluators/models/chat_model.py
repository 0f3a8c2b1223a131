"""A local Hugging Face model that answers dialogues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.endpoints.answer import Answer, read_answer
from dataset_builders.errors import MaskError
from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.reasoning import mark_tokens, opens_thought
from evaluators.models.interface import Decoding, Values
from evaluators.models.letter_tokens import tokens_writing
from evaluators.models.local_calls import LocalCalls
from evaluators.stats.intervals import log_sum

if TYPE_CHECKING:
    from evaluators.models.token_model import TokenModel

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_SLACK = 8
"""Tokens beyond a stop text's bytes in which it is searched."""

_MARK_TOKENS = 16
"""Last tokens of a prompt that can contain the mark that opens reasoning, as text."""


class LocalModel:
    """Answers dialogues in batches; a `LanguageModel`.

    Prompts are rendered and encoded by the same code as training rows. For most templates a model
    therefore gets exactly the prefix it was trained on; turns for which this does not hold are
    counted in a build's report (`off_prompt`). Tools are shown, and calls read, as the chat
    template writes them; see `LocalCalls`. Call it within
    `evaluators.models.eval_mode.evaluation_mode`.

    Args:
        tokens: The model.
        tokenizer: Its fast tokenizer, with its chat template.
        end_of_turn: Tokens beside eos, and those of the model's generation config, that end
            a turn.
        context_length: Tokens of prompt and answer together; a dialogue whose prompt
            leaves no room is not continued. Taken from the model's config by default.

    Raises:
        ConfigError: The tokenizer cannot be used, see `ChatRenderer`.
    """

    def __init__(
        self,
        tokens: TokenModel,
        tokenizer: Any,
        end_of_turn: Sequence[str] = (),
        context_length: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._renderer = ChatRenderer(tokenizer, end_of_turn)
        self._coder = Coder(tokenizer)
        self._writers: dict[str, list[int]] = {}
        self._context = context_length or tokens.context_length
        self._end_ids = [
            tokenizer.convert_tokens_to_ids(token) for token in self._renderer.end_tokens
        ]
        added = tokenizer.added_tokens_decoder
        self._special = {i for i, token in added.items() if token.special}
        marks = mark_tokens(added[i].content for i in self._special)
        self._marks = {i for i in self._special if added[i].content in marks}
        # As in `model.generate`; but a hand-written config may list an ordinary word.
        self._end_ids += [i for i in tokens.end_ids if i in added]

    def chat(
        self,
        dialogues: Sequence[Sequence[Message]],
        decoding: Decoding,
        tools: Sequence[str] | None = None,
    ) -> list[str | None]:
        """See `LanguageModel.chat`."""
        offered = tools or [""] * len(dialogues)
        prompts = [
            self.prompt_ids(dialogue, each)
            for dialogue, each in zip(dialogues, offered, strict=True)
        ]
        return self._answer(prompts, decoding, offered)

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.continue_text`."""
        rows = [self._tokenizer(_sound(text))["input_ids"] for text in prompts]
        return self._answer(rows, decoding, [""] * len(rows))

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[Values | None]:
        """See `LanguageModel.next_token_logprobs`."""
        ids = [self._writing(candidate) for candidate in candidates]
        flat = [number for each in ids for number in each]
        prompts = [self.prompt_ids(dialogue) for dialogue in dialogues]
        rows = self._where_fitting(prompts, 1, lambda rows: self._tokens.next_logprobs(rows, flat))
        found: list[Values | None] = []
        for prompt, row in zip(prompts, rows, strict=True):
            values = iter(row or ())
            sums = [log_sum([next(values) for _ in each]) for each in ids] if row else None
            found.append(None if sums is None else Values(sums, prompt_tokens=len(prompt)))
        return found

    def prompt_ids(self, dialogue: Sequence[Message], tools: str = "") -> list[int]:
        """Return the ids of the prompt for the next assistant turn.

        Args:
            dialogue: Messages so far.
            tools: JSON text of the tools that the model may call, or "".
        """
        messages = [_sound_message(message) for message in dialogue]
        if tools or any(message.tool_calls for message in messages):
            messages, tools = self._calls.prompt(messages, _sound(tools))
        # As for training rows: control tokens in a dialogue's content stay text.
        try:
            return self._coder.prompt_ids(self._renderer.render_prompt(messages, tools))
        except MaskError as error:
            if error.reason == "reasoning":
                # The template cannot render earlier reasoning, so the model does not see it.
                return self.prompt_ids([replace(m, reasoning=None) for m in messages], tools)
            apart = [replace(m, content=self._apart(m.content)) for m in messages]
            if apart == messages:
                raise
        # The template changed an escaped token, for example by cutting off a thought. A model may
        # write anything, and one turn must not abort an evaluation.
        _log.warning("a dialogue's control tokens are shown with a blank in them")
        return self._coder.prompt_ids(self._renderer.render_prompt(apart, tools))

    @cached_property
    def _calls(self) -> LocalCalls:
        ends = [self._tokenizer.convert_ids_to_tokens(i) for i in self._end_ids]
        return LocalCalls(self._tokenizer, ends)

    def _apart(self, text: str) -> str:
        for token in sorted(self._renderer.control_tokens, key=len, reverse=True):
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _answer(
        self, prompts: list[list[int]], decoding: Decoding, tools: Sequence[str]
    ) -> list[str | None]:
        limit = decoding.max_new_tokens

        def generate(rows: list[list[int]]) -> list[list[int]]:
            stopped = self._stopped(decoding.stop) if decoding.stop else None
            return self._tokens.generate(rows, decoding, self._end_ids, stopped)

        written = self._where_fitting(prompts, limit, generate)
        return [
            None if ids is None else self._said(ids, decoding, self._in_thought(row), each)
            for row, ids, each in zip(prompts, written, tools, strict=True)
        ]

    def _said(self, ids: list[int], decoding: Decoding, opened: bool, tools: str) -> Answer:
        # What marks a call is often a special token.
        text = str(self._tokenizer.decode(ids)) if tools else self._decode(ids)
        said = _cut(text, decoding.stop)
        cut = len(ids) >= decoding.max_new_tokens and said == text
        if tools:
            return self._calls.read(said, tools, opened=opened, cut=cut)
        return read_answer(Answer(said.strip(), cut=cut), opened=opened)

    def _where_fitting(
        self, prompts: list[list[int]], room: int, ask: Callable[[list[list[int]]], list[_T]]
    ) -> list[_T | None]:
        fits = [i for i, row in enumerate(prompts) if len(row) + room <= self._context]
        answers: list[_T | None] = [None] * len(prompts)
        if fits:
            for index, answer in zip(fits, ask([prompts[i] for i in fits]), strict=True):
                answers[index] = answer
        return answers

    def _writing(self, candidate: str) -> list[int]:
        if candidate not in self._writers:
            (self._writers[candidate],) = tokens_writing(self._tokenizer, [candidate])
        return self._writers[candidate]

    def _in_thought(self, prompt: list[int]) -> bool:
        """Whether the template has opened reasoning that the answer continues."""
        return opens_thought(str(self._tokenizer.decode(prompt[-_MARK_TOKENS:])))

    def _decode(self, ids: list[int]) -> str:
        """Decode an answer without special tokens, except those that mark reasoning."""
        if self._marks.isdisjoint(ids):
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        kept = [i for i in ids if i in self._marks or i not in self._special]
        return str(self._tokenizer.decode(kept))

    def _stopped(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool]:
        # A token is at least a byte; some more, as a decoder may drop the first blank.
        length = max(len(mark.encode("utf-8", "replace")) for mark in stop) + _SLACK

        def stopped(ids: Sequence[int]) -> bool:
            tail = self._decode(list(ids[-length:]))
            return any(mark in tail for mark in stop)

        return stopped


def _sound(text: str) -> str:
    """Replace lone surrogates, which no tokenizer accepts."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _sound_message(message: Message) -> Message:
    reasoning = message.reasoning and _sound(message.reasoning)
    calls = tuple(replace(c, arguments=_sound(c.arguments)) for c in message.tool_calls)
    content = _sound(message.content)
    return replace(message, content=content, reasoning=reasoning, tool_calls=calls)


def _cut(text: str, stop: Sequence[str]) -> str:
    ends = [place for mark in stop if (place := text.find(mark)) >= 0]
    return text[: min(ends)] if ends else text
