"""Token-level interface to a Hugging Face model: ids in, ids or log-probabilities out.

Why not transformers' `generate_batch`: on a CPU it takes 1.38 times the CPU time of our engine with
its prefix cache (benchmarks/results/evaluate_peers.txt), and it calls the model from a thread of
its own, which sharded models do not allow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from evaluators.models.batching import reading_batches, writing_batches
from evaluators.models.interface import Decoding
from evaluators.models.logprobs import TokenScores, divergence_sums, token_scores
from evaluators.models.model_info import UNSAID_CONTEXT, end_ids, num_positions, vocabulary_size

if TYPE_CHECKING:
    from evaluators.models.cache_support import CacheSupport
    from evaluators.models.generation import GenerationEngine, Work
    from evaluators.models.prefix_cache import PrefixCache

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class TokenModel:
    """Generates and scores token ids; call it within `eval_mode.evaluation_mode`.

    Keys and values of prompts and answers are reused in later calls until the weights may change,
    as far as the model's cache supports it (`cache_support`).

    Every model call is one `_forward`, which processes that share a model's weights override.

    Attributes:
        reuse: Whether keys and values are kept between calls.

    Args:
        model: The bare model.
        pad_id: Token to fill batches with; it is masked.
        reuse: See above.
        max_rows: Rows of a generation batch.
    """

    def __init__(self, model: Any, pad_id: int, *, reuse: bool = True, max_rows: int = 64) -> None:
        self._model = model
        # One that was added only to the tokenizer would be looked up like any other.
        self._pad_id = pad_id if pad_id < vocabulary_size(model) else 0
        self.reuse = reuse
        self._max_rows = max_rows
        self._support: CacheSupport | None = None
        self._prefixes: PrefixCache | None = None

    @property
    def context_length(self) -> int:
        """Maximum tokens of prompt and answer together."""
        return num_positions(self._model) or UNSAID_CONTEXT

    @property
    def end_ids(self) -> tuple[int, ...]:
        """End tokens of the model's generation config."""
        return end_ids(self._model)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        end_ids: Sequence[int],
        stopped: Callable[[Sequence[int]], bool] | None = None,
    ) -> list[list[int]]:
        """Continue prompts until one of the end tokens, which is not returned.

        Args:
            prompts: Token ids of each.
            decoding: Decoding settings; `stop` is handled by `stopped`.
            end_ids: Tokens that end an answer.
            stopped: Called with an answer so far; returns whether it ends here.

        Raises:
            ConfigError: A prompt is empty, or has a token id outside of the model's vocabulary.
        """
        from evaluators.models.generation import Writing, check_prompts
        from evaluators.models.sampler import TokenChooser

        check_prompts(prompts, vocabulary_size(self._model))
        answers: list[list[int]] = [[] for _ in prompts]
        if decoding.max_new_tokens < 1:
            return answers
        limit, ends = decoding.max_new_tokens, frozenset(end_ids)

        def write(
            engine: GenerationEngine, batch: Sequence[Sequence[int]]
        ) -> Work[list[list[int]]]:
            # A new chooser per attempt: a failed attempt has already used its random numbers.
            writing = Writing(TokenChooser(decoding, batch), ends, limit, stopped)
            return engine.answers(batch, writing)

        for row, answer in self._by_batches(prompts, limit, write):
            answers[row] = answer
        return answers

    def next_logprobs(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]
    ) -> list[list[float]]:
        """Return the log-probability in nats of each candidate after each prompt.

        Raises:
            ConfigError: A prompt is empty, or has a token id outside of the model's vocabulary.
        """
        import torch

        from evaluators.models.generation import check_prompts

        check_prompts(prompts, vocabulary_size(self._model))
        found: list[list[float]] = [[] for _ in prompts]

        def read(engine: GenerationEngine, batch: Sequence[Sequence[int]]) -> Work[Any]:
            return engine.last_logits(batch)

        for row, logits in self._by_batches(prompts, 0, read):
            values = torch.log_softmax(logits.float(), dim=-1)
            found[row] = values[list(candidates)].tolist()
        return found

    def score(self, rows: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score all tokens of rows with at least two tokens.

        Raises:
            ConfigError: A row has a token id outside of the model's vocabulary.
        """
        from evaluators.models.generation import check_prompts

        check_prompts(rows, vocabulary_size(self._model))
        found: list[TokenScores | None] = [None] * len(rows)

        def read() -> Work[None]:
            apart = self._engine().support.apart
            for chosen in reading_batches([len(row) for row in rows], apart):
                batch, mask = self._padded([rows[row] for row in chosen])
                output = yield {"input_ids": batch, "attention_mask": mask, "use_cache": False}
                lengths = [len(rows[row]) for row in chosen]
                for row, scores in zip(chosen, token_scores(output, batch, lengths), strict=True):
                    found[row] = scores

        self._run(read())
        return [scores for scores in found if scores is not None]

    def divergence(
        self,
        rows: Sequence[Sequence[int]],
        counted: Sequence[Sequence[bool]],
        reference: Callable[..., Any],
    ) -> list[float]:
        """Return the sum of KL(reference || model) over counted positions of each row, in nats.

        Args:
            rows: Token ids, at least two each.
            counted: (T - 1,) of each row: whether the prediction of the token after it counts.
            reference: Forward pass of the reference model, with the same vocabulary.

        Raises:
            ConfigError: A row has a token id outside of the model's vocabulary.
        """
        from evaluators.models.generation import check_prompts

        check_prompts(rows, vocabulary_size(self._model))
        found = [0.0] * len(rows)

        def read() -> Work[None]:
            apart = self._engine().support.apart
            for chosen in reading_batches([len(row) for row in rows], apart):
                batch, mask = self._padded([rows[row] for row in chosen])
                inputs = {"input_ids": batch, "attention_mask": mask, "use_cache": False}
                output = yield inputs
                sums = divergence_sums(output, reference(**inputs), [counted[r] for r in chosen])
                for row, value in zip(chosen, sums, strict=True):
                    found[row] = value

        self._run(read())
        return found

    def _forward(self, **arguments: Any) -> Any:
        """Call the model: the only place that does."""
        return self._model(**arguments)

    def _run(self, work: Work[_T]) -> _T:
        import torch

        output: Any = None
        with torch.no_grad():
            while True:
                try:
                    request = work.send(output)
                except StopIteration as end:
                    result: _T = end.value
                    return result
                output = self._forward(**request)

    def _by_batches(
        self,
        prompts: Sequence[Sequence[int]],
        room: int,
        make: Callable[[GenerationEngine, Sequence[Sequence[int]]], Work[Any]],
    ) -> list[tuple[int, Any]]:
        """Process prompts in batches; yield results with the prompts' numbers."""
        lengths = [len(prompt) for prompt in prompts]
        apart = self._engine().support.apart
        waiting = writing_batches(lengths, room, self._max_rows, apart)[::-1]
        done: list[tuple[int, Any]] = []
        while waiting:
            rows = waiting.pop()
            results = self._attempt([prompts[row] for row in rows], make)
            if results is None:
                half = len(rows) // 2
                waiting += [part for part in (rows[half:], rows[:half]) if part]
            else:
                done += zip(rows, results, strict=True)
        return done

    def _attempt(
        self,
        batch: Sequence[Sequence[int]],
        make: Callable[[GenerationEngine, Sequence[Sequence[int]]], Work[Any]],
    ) -> Any:
        """Process a batch; return None if it must be retried in halves."""
        import torch

        from evaluators.models.cache_support import warn_no_cache
        from evaluators.models.generation import ForeignCacheError

        engine = self._engine()
        held = 0 if engine.prefixes is None else engine.prefixes.num_tokens
        try:
            return self._run(make(engine, batch))
        except ForeignCacheError:
            shared = engine.support.kind == "shared"
            self._support = replace(engine.support, kind="own" if shared else "none")
            if not shared:
                warn_no_cache(self._model, "it does not return the cache that it is given")
        except torch.OutOfMemoryError:
            if len(batch) == 1 and not held:
                raise
            if len(batch) > 1:
                self._max_rows = min(self._max_rows, len(batch) // 2)
                _log.warning("out of memory: at most %d rows from here on", self._max_rows)
        # Outside of the handlers, which keep references to the batch.
        if engine.prefixes is not None:
            engine.prefixes.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _engine(self) -> GenerationEngine:
        from evaluators.models.cache_support import cache_support, room_for_prefixes
        from evaluators.models.generation import GenerationEngine
        from evaluators.models.prefix_cache import PrefixCache, are_weights_frozen

        if self._support is None:
            self._support = cache_support(self._model)
        # Outside of `weights_frozen` the weights may change at any time.
        usable = self.reuse and self._support.kind == "shared" and are_weights_frozen()
        if usable and self._prefixes is None:
            self._prefixes = PrefixCache(room_for_prefixes(self._model))
        return GenerationEngine(
            self._model.config,
            self._support,
            self._pad_id,
            self._model.device,
            self._prefixes if usable else None,
        )

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        import torch

        width = max(map(len, rows))
        # Not by the tokenizer: its padding side must not change.
        batch = torch.full((len(rows), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            batch[number, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[number, : len(row)] = 1
        return batch.to(self._model.device), mask.to(self._model.device)
