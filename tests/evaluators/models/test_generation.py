"""Generation with reused prefixes says what the library's own says, row by row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.prefix_cache import PrefixCache  # noqa: E402
from evaluators.models.sampler import TokenChooser  # noqa: E402
from evaluators.models.target import Decoding, EvalTarget  # noqa: E402
from evaluators.models.token_model import TokenModel  # noqa: E402
from tests.support.tiny_models import (  # noqa: E402
    COMMON,
    ENDS,
    VOCABULARY,
    Stubborn,
    gpt2,
    llama,
    lora,
    mamba,
    mistral,
    subject_of,
)

MODELS = {
    "llama": (llama, "shared"),
    "eager": (lambda: llama(attn_implementation="eager"), "shared"),
    "lora": (lora, "shared"),
    "gpt2": (gpt2, "shared"),
    "dynamic": (
        lambda: llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
        "own",
    ),
    "sliding": (mistral, "own"),
    "stubborn": (lambda: Stubborn(transformers.LlamaConfig(**COMMON)), "own"),
    "mamba": (mamba, "none"),
}


def made(kind: str) -> tuple[Any, EvalTarget]:
    subject = subject_of(MODELS[kind][0])
    return subject.model, subject


def reference(model: Any, row: Sequence[int], limit: int) -> list[int]:
    """What the library's generate says to a row alone."""
    ids = torch.tensor([row])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=ENDS,
        pad_token_id=0,
    )[0, len(row) :].tolist()
    return out[:-1] if out and out[-1] in ENDS else out


def rows_of(seed: int, number: int) -> list[list[int]]:
    """Rows of many lengths, with an opening that some share and some leave early."""
    draw = random.Random(seed)
    opening = [draw.randrange(10, VOCABULARY) for _ in range(30)]
    return [
        opening[: draw.choice([1, 25, 30])]
        + [draw.randrange(10, VOCABULARY) for _ in range(draw.randrange(1, 70))]
        for _ in range(number)
    ]


class Watched(TokenModel):
    """Notes the shape of every forward pass's tokens."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.shapes: list[tuple[int, int]] = []

    def _forward(self, **arguments: Any) -> Any:
        self.shapes.append(tuple(arguments["input_ids"].shape))
        return super()._forward(**arguments)


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_over_rounds_says_what_generate_says(kind: str) -> None:
    model, subject = made(kind)
    rows = rows_of(1, 4 if kind == "mamba" else 9)
    with evaluation_mode(subject):
        tokens = TokenModel(model, 0)
        # The second round goes on from the first; some rows forget a part of what they had.
        for round_ in range(3 if MODELS[kind][1] == "shared" else 2):
            answers = tokens.generate(rows, Decoding(12), ENDS)
            assert answers == [reference(model, row, 12) for row in rows]
            assert any(answers)
            rows = [
                row[: len(row) - (number % 3) * 4 or 1] + answer[round_:] + [11, 12, 13 + number]
                for number, (row, answer) in enumerate(zip(rows, answers, strict=True))
            ]
        assert tokens._support is not None
        assert tokens._support.kind == MODELS[kind][1]


@pytest.mark.parametrize(("reuse", "room"), [(False, 0), (True, 10**6), (True, 90)])
def test_neither_reuse_nor_eviction_changes_a_word(reuse: bool, room: int) -> None:
    model, subject = made("llama")
    with evaluation_mode(subject):
        tokens = TokenModel(model, 0, reuse=reuse, max_rows=4)
        tokens._prefixes = PrefixCache(room)
        for seed in (1, 2, 1):
            rows = rows_of(seed, 7)
            assert tokens.generate(rows, Decoding(9), ENDS) == [
                reference(model, row, 9) for row in rows
            ]
            assert tokens._prefixes.num_tokens <= room
        found = tokens.next_logprobs(rows, [5, 50])
        for row, values in zip(rows, found, strict=True):
            logits = model(input_ids=torch.tensor([row])).logits[0, -1]
            assert values == pytest.approx(logits.log_softmax(-1)[[5, 50]].tolist(), abs=1e-4)


def test_what_was_read_is_not_read_again() -> None:
    model, subject = made("llama")
    opening = [20] * 40
    rows = [[*opening, 30 + number, 31] for number in range(6)]
    with evaluation_mode(subject):
        tokens = Watched(model, 0)
        answers = tokens.generate(rows, Decoding(5), [])
        # The opening once, alone; of each row the rest.
        assert tokens.shapes == [(1, 40), (6, 2), *[(6, 1)] * 4]
        tokens.shapes.clear()
        tokens.generate(
            [row + answer + [7, 8] for row, answer in zip(rows, answers, strict=True)],
            Decoding(5),
            [],
        )
        # The last token of an answer was never read, and two are new.
        assert tokens.shapes == [(6, 3), *[(6, 1)] * 4]


def test_rows_that_have_ended_leave_the_batch() -> None:
    model, subject = made("llama")
    rows = rows_of(4, 8)
    with evaluation_mode(subject):
        whole = TokenModel(model, 0).generate(rows, Decoding(40), [])
        # The first rows' own tokens become ends, so that they stop early.
        limits = {tuple(answer): number for number, answer in enumerate(whole)}
        assert len(limits) == 8
        tokens = Watched(model, 0)

        def stopped(ids: Sequence[int]) -> bool:
            (number,) = {n for answer, n in limits.items() if answer[: len(ids)] == tuple(ids)} or {
                0
            }
            return len(ids) >= 3 * number + 8

        found = tokens.generate(rows, Decoding(40), [], stopped)
    assert found == [answer[: 3 * number + 8] for number, answer in enumerate(whole)]
    assert [shape[0] for shape in tokens.shapes[-40:]].count(8) < 25
    assert tokens.shapes[-1][0] == 1


def test_nothing_is_kept_beyond_the_loan() -> None:
    model, subject = made("llama")
    rows = rows_of(5, 3)
    tokens = TokenModel(model, 0)
    for scale in (1.0, 1.5, 0.5):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
            model.model.embed_tokens.weight.add_(scale / 10)
        with evaluation_mode(subject):
            assert tokens.generate(rows, Decoding(6), ENDS) == [
                reference(model, row, 6) for row in rows
            ]
            assert tokens._prefixes is not None
            assert tokens._prefixes.num_tokens
        assert tokens._prefixes.num_tokens == 0
        tokens.generate(rows, Decoding(6), ENDS)
        assert tokens._prefixes.num_tokens == 0


class Small(Watched):
    """A device that holds two rows."""

    def _forward(self, **arguments: Any) -> Any:
        if arguments["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError
        return super()._forward(**arguments)


def test_out_of_memory_halves_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    model, subject = made("llama")
    rows = rows_of(6, 8)
    with evaluation_mode(subject):
        tokens = Small(model, 0)
        # Sampled, for an attempt that failed must not have drawn.
        decoding = Decoding(6, temperature=1.0)
        assert tokens.generate(rows, decoding, ENDS) == TokenModel(model, 0).generate(
            rows, decoding, ENDS
        )
        said = len(caplog.records)
        assert 1 <= said <= 3
        tokens.generate(rows, Decoding(6), ENDS)
        assert len(caplog.records) == said
        tokens._forward = _full  # type: ignore[method-assign]
        with pytest.raises(torch.OutOfMemoryError):
            tokens.generate(rows[:1], Decoding(6), ENDS)


def _full(**_: Any) -> Any:
    raise torch.OutOfMemoryError


def test_an_answer_is_drawn_whatever_else_is_in_the_batch() -> None:
    model, subject = made("llama")
    rows = rows_of(8, 6)
    warm = Decoding(10, temperature=1.3, top_p=0.9, seed=4)
    with evaluation_mode(subject):
        together = TokenModel(model, 0).generate(rows, warm, ENDS)
        alone = [TokenModel(model, 0).generate([row], warm, ENDS)[0] for row in rows]
        other = TokenModel(model, 0).generate(rows, Decoding(10, 1.3, 0.9, seed=5), ENDS)
        narrow = TokenModel(model, 0).generate(rows, Decoding(10, 1.3, top_p=1e-6), ENDS)
        greedy = TokenModel(model, 0).generate(rows, Decoding(10), ENDS)
    assert together == alone
    assert together != other
    assert narrow == greedy != together


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    prompts = [[number] for number in range(4000)]
    logits = torch.log(torch.tensor([0.1, 0.4, 0.3, 0.2])).repeat(len(prompts), 1)
    for top_p, expected in ((1.0, [0.1, 0.4, 0.3, 0.2]), (0.6, [0, 4 / 7, 3 / 7, 0])):
        chooser = TokenChooser(Decoding(1, temperature=1.0, top_p=top_p), prompts)
        drawn = torch.tensor(chooser.choose(logits, range(len(prompts))))
        shares = torch.bincount(drawn, minlength=4) / len(prompts)
        assert shares.tolist() == pytest.approx(expected, abs=0.04)


ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12)


def values_of(tokens: Sequence[int]) -> Any:
    piece = torch.tensor(tokens, dtype=torch.float32)[None, :, None]
    return [(piece, -piece)]


@settings(deadline=None, max_examples=60)
@given(ROWS, st.lists(st.integers(0, 2), max_size=9), st.integers(3, 100))
def test_the_longest_known_beginning_is_found(
    rows: list[list[int]], wanted: list[int], room: int
) -> None:
    cache, whole = PrefixCache(room), PrefixCache(10**6)
    for row in rows:
        for store in (cache, whole):
            known, _ = store.find(row)
            if known < len(row):
                store.add(row, known, values_of(row[known:]))
        assert cache.num_tokens <= room
    length, pieces = cache.find(wanted)
    told = [token for piece in pieces for token in piece[0][0][0, :, 0].tolist()]
    assert told == wanted[:length]
    shared = [
        next((i for i, (a, b) in enumerate(zip(row, wanted, strict=False)) if a != b), None)
        or (min(len(row), len(wanted)) if row[:1] == wanted[:1] else 0)
        for row in rows
    ]
    assert whole.find(wanted)[0] == max(shared, default=0)
