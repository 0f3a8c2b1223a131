"""A Hugging Face model as one that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.errors import ConfigError
from dataset_builders.masks.chat import ChatRenderer
from evaluators.subject import Decoding

if TYPE_CHECKING:
    from evaluators.subject import Subject

_T = TypeVar("_T")


class LocalModel:
    """Answers dialogues in batches; a `LanguageModel`.

    Prompts are rendered and encoded by the same code as training rows. For most templates a
    model is so asked with the very prefix that it was trained on; the turns for which that
    is not so are counted in a build's report (`off_prompt`). Call it within
    `evaluators.model_state.borrowed`.

    Args:
        subject: The model and its tokenizer.
        context_length: Tokens of prompt and answer together; a dialogue whose prompt
            leaves no room is not continued. Taken from the model's config by default.

    Raises:
        ConfigError: The tokenizer cannot be used, see `ChatRenderer`.
    """

    def __init__(self, subject: Subject, context_length: int | None = None) -> None:
        self._tokenizer = subject.tokenizer
        self._tokens = subject.tokens()
        self._renderer = ChatRenderer(subject.tokenizer, subject.end_of_turn)
        self._coder = Coder(subject.tokenizer)
        self._context = context_length or _context_length(subject.model.config)
        self._end_ids = [
            subject.tokenizer.convert_tokens_to_ids(token) for token in self._renderer.end_tokens
        ]

    def chat(self, dialogues: Sequence[Sequence[Message]], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.chat`."""
        return self._answer([self._prompt_ids(dialogue) for dialogue in dialogues], decoding)

    def continue_text(self, prompts: Sequence[str], decoding: Decoding) -> list[str | None]:
        """See `LanguageModel.continue_text`."""
        return self._answer([self._tokenizer(prompt)["input_ids"] for prompt in prompts], decoding)

    def next_token_logprobs(
        self, dialogues: Sequence[Sequence[Message]], candidates: Sequence[str]
    ) -> list[list[float] | None]:
        """See `LanguageModel.next_token_logprobs`."""
        ids = [self._single(candidate) for candidate in candidates]
        prompts = [self._prompt_ids(dialogue) for dialogue in dialogues]
        return self._where_fitting(prompts, 1, lambda rows: self._tokens.next_logprobs(rows, ids))

    def _prompt_ids(self, dialogue: Sequence[Message]) -> list[int]:
        # As training rows are encoded: control tokens that a dialogue spells stay text.
        return self._coder.prompt_ids(self._renderer.render_prompt(dialogue))

    def _answer(self, prompts: list[list[int]], decoding: Decoding) -> list[str | None]:
        def generate(rows: list[list[int]]) -> list[str]:
            answers = self._tokens.generate(rows, decoding, self._end_ids)
            return [_cut(self._decode(ids), decoding.stop) for ids in answers]

        return self._where_fitting(prompts, decoding.max_new_tokens, generate)

    def _where_fitting(
        self, prompts: list[list[int]], room: int, ask: Callable[[list[list[int]]], list[_T]]
    ) -> list[_T | None]:
        fits = [i for i, row in enumerate(prompts) if len(row) + room <= self._context]
        answers: list[_T | None] = [None] * len(prompts)
        if fits:
            for index, answer in zip(fits, ask([prompts[i] for i in fits]), strict=True):
                answers[index] = answer
        return answers

    def _single(self, candidate: str) -> int:
        ids = self._tokenizer(candidate, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ConfigError(f"candidate {candidate!r}: found {len(ids)} tokens, expected 1")
        return int(ids[0])

    def _decode(self, ids: list[int]) -> str:
        text: Any = self._tokenizer.decode(ids, skip_special_tokens=True)
        return str(text).strip()


def _cut(text: str, stop: Sequence[str]) -> str:
    ends = [place for mark in stop if (place := text.find(mark)) >= 0]
    return text[: min(ends)].rstrip() if ends else text


def _context_length(config: Any) -> int:
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else 4096
