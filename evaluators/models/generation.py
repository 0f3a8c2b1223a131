"""Text generation, as generators that yield one forward pass at a time.

The functions are generators: they yield the arguments of a forward pass and are sent its output.
Their caller (`TokenModel`) thus has all model calls in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from dataset_builders.errors import ConfigError
from evaluators.models.cache_support import CacheSupport, new_cache
from evaluators.models.kv_cache import CacheBatch
from evaluators.models.prefix_cache import KeyValues, PrefixCache
from evaluators.models.sampler import TokenChooser

_T = TypeVar("_T")
Work = Generator[dict[str, Any], Any, _T]
"""Yields a forward pass's arguments, is sent its output, and returns the result."""

_MAX_READ_TOKENS = 4096
"""Padded tokens read in one pass, unless a single row is longer."""

_MIN_COMMON = 16
"""Minimum tokens of a common prefix for it to get a separate pass."""


class ForeignCacheError(Exception):
    """The model did not fill the cache that it was given."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Settings of the answers to generate.

    Attributes:
        chooser: Selects tokens.
        end_ids: Tokens that end an answer and are not part of it.
        max_new_tokens: Maximum tokens of an answer.
        stopped: Whether the answer so far ends here.
    """

    chooser: TokenChooser
    end_ids: frozenset[int]
    max_new_tokens: int
    stopped: Callable[[Sequence[int]], bool] | None = None

    def is_over(self, answer: list[int], token: int) -> bool:
        """Append a token, unless it ends the answer; return whether the answer ends here."""
        if token in self.end_ids:
            return True
        answer.append(token)
        if len(answer) >= self.max_new_tokens:
            return True
        return self.stopped is not None and self.stopped(answer)


@dataclass(frozen=True, slots=True)
class GenerationEngine:
    """Generates and scores with a model; holds the model's settings.

    Attributes:
        config: The model's.
        support: What its cache supports.
        pad_id: Token of masked positions.
        device: Device of inputs.
        prefixes: Cached prefixes, if reuse is possible.
    """

    config: Any
    support: CacheSupport
    pad_id: int
    device: Any
    prefixes: PrefixCache | None = None

    def answers(self, prompts: Sequence[Sequence[int]], writing: Writing) -> Work[list[list[int]]]:
        """Generate the answers of a batch.

        Args:
            prompts: Token ids, none of them empty; those of the chooser.
            writing: Settings of the answers.
        """
        if self.support.kind == "none":
            return (yield from self._without_cache(prompts, writing))
        if self.support.kind == "own":
            batch: _OwnBatch | CacheBatch
            order, batch, logits = yield from self._read_at_once(prompts)
        else:
            order, batch, logits = yield from self._read(prompts)
        answers: list[list[int]] = [[] for _ in prompts]
        slots = order  # The prompt of each row of the batch; -1 for none.
        while True:
            seated = [slot for slot, number in enumerate(slots) if number >= 0]
            chosen = writing.chooser.choose(logits[seated], [slots[slot] for slot in seated])
            tokens = [self.pad_id] * len(slots)
            for slot, token in zip(seated, chosen, strict=True):
                number = slots[slot]
                if writing.is_over(answers[number], token):
                    self._keep(batch, slot, [*prompts[number], *answers[number]])
                    slots[slot] = -1
                tokens[slot] = token
            staying = [slot for slot, number in enumerate(slots) if number >= 0]
            if not staying:
                return answers
            # Finished rows are still computed, until it pays to remove them.
            if 2 * len(staying) <= len(slots) and isinstance(batch, CacheBatch):
                batch.select(staying)
                slots = [slots[slot] for slot in staying]
                tokens = [tokens[slot] for slot in staying]
            if self._turns(prompts, answers):
                slots, batch, logits = yield from self._read_at_once([[*prompts[0], *answers[0]]])
                continue
            logits = yield from self._next(batch, slots, tokens)

    def _turns(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> bool:
        """Whether the row, then alone, switches to other angles, so that its cache is invalid."""
        if self.support.turn is None or len(prompts) > 1:
            return False
        return bool(answers[0]) and len(prompts[0]) + len(answers[0]) == self.support.turn + 1

    def last_logits(self, prompts: Sequence[Sequence[int]]) -> Work[Any]:
        """Return the logits after each prompt: (B, V)."""
        if self.support.kind == "shared":
            order, batch, logits = yield from self._read(prompts)
            for slot, number in enumerate(order):
                self._keep(batch, slot, prompts[number])
            places = torch.tensor(order, device=logits.device).argsort()
            return logits[places]
        found = []
        for prompt in prompts:
            output = yield self._alone(prompt)
            found.append(output.logits[0, -1])
        return torch.stack(found)

    def _read(self, prompts: Sequence[Sequence[int]]) -> Work[tuple[list[int], CacheBatch, Any]]:
        """Read prompts; numbers of the prompts by row, the cache, and the last logits."""
        yield from self._read_common(prompts)
        found = [self._find(prompt[:-1]) for prompt in prompts]
        order: list[int] = []
        parts: list[CacheBatch] = []
        logits: list[Any] = []
        for chunk in _chunks([len(p) - n for p, (n, _) in zip(prompts, found, strict=True)]):
            batch = CacheBatch.of_pieces(
                len(new_cache(self.config).layers),
                [found[number][1] for number in chunk],
                self.device,
            )
            new = [prompts[number][found[number][0] :] for number in chunk]
            logits.append((yield from self._pass(batch, new)))
            if not batch.is_filled():
                raise ForeignCacheError
            order += chunk
            parts.append(batch)
        return order, CacheBatch.joined(parts), torch.cat(logits)

    def _read_common(self, prompts: Sequence[Sequence[int]]) -> Work[None]:
        if self.prefixes is None or len(prompts) < 2:
            return
        first, last = min(map(list, prompts)), max(map(list, prompts))
        pairs = zip(first[:-1], last[:-1], strict=False)
        length = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if length is None:
            length = min(len(first), len(last)) - 1
        known, pieces = self.prefixes.find(first[:length])
        if length - known < _MIN_COMMON or length > self.prefixes.max_tokens:
            return
        batch = CacheBatch.of_pieces(len(new_cache(self.config).layers), [pieces], self.device)
        yield from self._pass(batch, [first[known:length]])
        if not batch.is_filled():
            raise ForeignCacheError
        self.prefixes.add(first[:length], known, batch.entries(0, known))

    def _read_at_once(
        self, prompts: Sequence[Sequence[int]]
    ) -> Work[tuple[list[int], _OwnBatch, Any]]:
        batch = _OwnBatch(
            new_cache(self.config), torch.zeros((len(prompts), 0), dtype=torch.long).to(self.device)
        )
        logits = yield from self._pass(batch, prompts)
        return list(range(len(prompts))), batch, logits

    def _pass(self, batch: CacheBatch | _OwnBatch, new: Sequence[Sequence[int]]) -> Work[Any]:
        """Read further tokens of the rows of a batch; the logits after them."""
        width = max(map(len, new))
        ids = [[self.pad_id] * (width - len(row)) + list(row) for row in new]
        own = [[0] * (width - len(row)) + [1] * len(row) for row in new]
        return (yield from self._forward(batch, ids, own))

    def _next(
        self, batch: CacheBatch | _OwnBatch, slots: Sequence[int], tokens: Sequence[int]
    ) -> Work[Any]:
        """Read one token of every row; the logits after it."""
        own = [[int(number >= 0)] for number in slots]
        return (yield from self._forward(batch, [[token] for token in tokens], own))

    def _forward(
        self, batch: CacheBatch | _OwnBatch, ids: list[list[int]], own: list[list[int]]
    ) -> Work[Any]:
        mask = torch.tensor(own).to(self.device)
        batch.extend(mask)
        arguments = {
            "input_ids": torch.tensor(ids).to(self.device),
            "attention_mask": batch.mask,
            self.support.name: batch.cache,
            "use_cache": True,
        }
        if self.support.positions:
            # Of the row, not of the column.
            places = batch.mask.cumsum(-1)[:, -mask.shape[1] :] - 1
            arguments["position_ids"] = places.clamp(min=0)
        if self.support.last_only:
            arguments["logits_to_keep"] = 1
        output = yield arguments
        if isinstance(batch, _OwnBatch):  # Some models return another cache than the one passed in.
            batch.cache = getattr(output, self.support.name, None)
            if batch.cache is None:
                raise ForeignCacheError
        return output.logits[:, -1]

    def _without_cache(
        self, prompts: Sequence[Sequence[int]], writing: Writing
    ) -> Work[list[list[int]]]:
        answers: list[list[int]] = [[] for _ in prompts]
        for number, prompt in enumerate(prompts):
            answer = answers[number]
            while True:
                output = yield self._alone([*prompt, *answer])
                (token,) = writing.chooser.choose(output.logits[:, -1], [number])
                if writing.is_over(answer, token):
                    break
        return answers

    def _alone(self, row: Sequence[int]) -> dict[str, Any]:
        ids = torch.tensor([row]).to(self.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}

    def _find(self, tokens: Sequence[int]) -> tuple[int, list[KeyValues]]:
        return (0, []) if self.prefixes is None else self.prefixes.find(tokens)

    def _keep(self, batch: CacheBatch | _OwnBatch, slot: int, tokens: Sequence[int]) -> None:
        if self.prefixes is None or not isinstance(batch, CacheBatch):
            return
        read = list(tokens[: int(batch.mask[slot].sum())])  # The last one never is.
        known, _ = self.prefixes.find(read)
        if known < len(read):
            self.prefixes.add(read, known, batch.entries(slot, known))


@dataclass(slots=True)
class _OwnBatch:
    """A batch in the model's own type of cache, from which no row is removed."""

    cache: Any
    mask: Any

    def extend(self, mask: Any) -> None:
        self.mask = torch.cat([self.mask, mask], dim=1)


def _chunks(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of rows to be read together: of a like length, and not too many tokens."""
    chunks: list[list[int]] = []
    shortest = 0
    for number in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        length = lengths[number]
        fits = chunks and (len(chunks[-1]) + 1) * length <= _MAX_READ_TOKENS
        if fits and length <= 2 * shortest + 32:
            chunks[-1].append(number)
        else:
            chunks.append([number])
            shortest = length
    return chunks


def check_prompts(prompts: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Reject a prompt without tokens, and tokens of another model.

    The latter end in an error of the library on a CPU; on a GPU they end the process's work
    there for good, training's too.

    Args:
        prompts: Token ids of each.
        vocabulary: Tokens that the model has vectors for.

    Raises:
        ConfigError: A prompt is empty, or has a token that is none of the model's.
    """
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise ConfigError(f"prompt {number}: found no tokens, expected at least one")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise ConfigError(
                f"token ids: found {min(prompt)} to {max(prompt)}, expected 0 to {vocabulary - 1}: "
                "the tokenizer is not the model's"
            )
