"""A Hugging Face model as the acting part of a dialogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataset_builders.conversation import Message
from dataset_builders.encoding.coding import Coder
from dataset_builders.masks.chat import ChatRenderer

if TYPE_CHECKING:
    from evaluators.base import Subject


class LocalPolicy:
    """Answers dialogues with batched greedy decoding.

    Prompts are rendered and encoded by the same code as training rows. For most templates a
    model is so played with the very prefix that it was trained on; the turns for which that
    is not so are counted in a build's report (`off_prompt`). Call it within
    `evaluators.model_state.borrowed`.

    Args:
        subject: The model and its tokenizer.
        context_length: Tokens of prompt and answer together; a dialogue whose prompt
            leaves no room is not continued. Taken from the model's config by default.
        max_new_tokens: Limit on an answer below the one that the environment sets.

    Raises:
        ConfigError: The tokenizer cannot be used, see `ChatRenderer`.
    """

    def __init__(
        self,
        subject: Subject,
        context_length: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        self._subject = subject
        self._renderer = ChatRenderer(subject.tokenizer, subject.end_of_turn)
        self._coder = Coder(subject.tokenizer)
        self._context = context_length or _context_length(subject.model.config)
        self._limit = max_new_tokens
        tokenizer = subject.tokenizer
        self._end_ids = [tokenizer.convert_tokens_to_ids(t) for t in self._renderer.end_tokens]
        pad = tokenizer.pad_token_id
        self._pad_id = self._end_ids[0] if pad is None else pad

    def complete(
        self, dialogues: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> list[str | None]:
        """One answer per dialogue; none where the context has no room for one.

        Args:
            dialogues: Messages so far of each dialogue, the last one not the model's.
            max_new_tokens: Longest answer in tokens.
        """
        max_new_tokens = min(max_new_tokens, self._limit or max_new_tokens)
        # As training rows are encoded: control tokens that a dialogue spells stay text.
        prompts = [self._renderer.render_prompt(dialogue) for dialogue in dialogues]
        ids = [self._coder.prompt_ids(prompt) for prompt in prompts]
        answers: list[str | None] = [None] * len(dialogues)
        fits = [i for i, row in enumerate(ids) if len(row) + max_new_tokens <= self._context]
        if fits:
            texts = self._generate([ids[i] for i in fits], max_new_tokens)
            for index, text in zip(fits, texts, strict=True):
                answers[index] = text
        return answers

    def _generate(self, ids: list[list[int]], max_new_tokens: int) -> list[str]:
        import torch
        from transformers import GenerationConfig

        width = max(map(len, ids))
        device = self._subject.device
        # Padded on the left by hand: the tokenizer's own padding side stays untouched.
        batch = torch.full((len(ids), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(ids), width), dtype=torch.long)
        for number, row in enumerate(ids):
            batch[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = 1
        # Said explicitly: Axolotl sets do_sample on the model's own generation config, and
        # training switches config.use_cache off.
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=self._end_ids,
            pad_token_id=self._pad_id,
            use_cache=True,
        )
        out: Any = self._subject.model.generate(
            input_ids=batch.to(device),
            attention_mask=mask.to(device),
            generation_config=settings,
        )
        return [self._decode(row) for row in out[:, width:].tolist()]

    def _decode(self, ids: list[int]) -> str:
        ends = [ids.index(end) for end in self._end_ids if end in ids]
        kept = ids[: min(ends, default=len(ids))]
        text: Any = self._subject.tokenizer.decode(kept, skip_special_tokens=True)
        return str(text).strip()


def _context_length(config: Any) -> int:
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else 4096
