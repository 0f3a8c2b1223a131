"""The fast engine gives the tokenizer's own ids, or is not used."""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.engines import (
    HuggingFaceEngine,
    choose_engine,
    difference,
    difficult_texts,
)
from dataset_builders.encoding.offsets import TokenWidths, specification, tokens_bytes
from dataset_builders.encoding.tiktoken_engine import (
    TiktokenEngine,
    UnsupportedTokenizerError,
    _unsure,
    build,
)
from dataset_builders.encoding.tokens import Encoder, TokenReport, encode_dataset
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.sources.loading import SourceSpec, load_source

pytest.importorskip("transformers")
pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")

# The pattern of Llama 3 and, but for its digits, of Qwen 2.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def with_backend(tokenizer: Any, **changes: Any) -> Any:
    """A copy of a tokenizer with other steps before its model."""
    changed = copy.deepcopy(tokenizer)
    for name, value in changes.items():
        setattr(changed.backend_tokenizer, name, value)
    return changed


@pytest.fixture(scope="module")
def variants(small_tokenizer: Any) -> dict[str, Any]:
    from tokenizers import Regex, normalizers, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated", invert=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    sequence = pre_tokenizers.Sequence
    llama3 = sequence([split, byte_level(add_prefix_space=False, use_regex=False)])
    smollm = sequence([digits, byte_level(add_prefix_space=False, use_regex=True)])
    return {
        "gpt2": small_tokenizer,
        "smollm2": with_backend(small_tokenizer, pre_tokenizer=smollm),
        "llama3": with_backend(small_tokenizer, pre_tokenizer=llama3),
        "qwen": with_backend(small_tokenizer, pre_tokenizer=llama3, normalizer=normalizers.NFC()),
    }


def built(tokenizer: Any) -> TiktokenEngine:
    return build(tokenizer, specification(tokenizer))


@pytest.mark.parametrize("name", ["gpt2", "smollm2", "llama3", "qwen"])
def test_every_kind_of_pattern_gives_the_same_ids(variants: dict[str, Any], name: str) -> None:
    tokenizer = variants[name]
    engine = built(tokenizer)
    assert difference(tokenizer, engine, []) == ""
    # Not for want of an answer.
    texts = difficult_texts(list(tokenizer.get_added_vocab()))
    answers = engine.encode(texts)
    assert sum(ids is not None for ids in answers) > 0.8 * len(texts)
    widths = TokenWidths.of(specification(tokenizer))
    assert widths is not None
    for text, ids in zip(texts, answers, strict=True):
        if ids is not None:
            assert widths.bounds(ids, len(text.encode())) is not None, text


@pytest.mark.parametrize("name", ["gpt2", "smollm2", "llama3", "qwen"])
@settings(max_examples=150, deadline=None, database=None)
@given(
    text=st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n\t's0é")))
)
def test_any_text_gives_the_same_ids(variants: dict[str, Any], name: str, text: str) -> None:
    tokenizer = variants[name]
    if not hasattr(tokenizer, "tested_engine"):
        tokenizer.tested_engine = built(tokenizer)
    (ids,) = tokenizer.tested_engine.encode([text])
    (expected,) = HuggingFaceEngine(tokenizer).encode([text])
    assert expected is not None
    assert ids is None or ids.tolist() == expected.tolist()


def test_texts_that_the_engine_is_not_sure_of_are_left_to_the_tokenizer(
    variants: dict[str, Any],
) -> None:
    engine = built(variants["qwen"])
    sure, *unsure = engine.encode(["\u00e9", "e\u0301", "\U00011de0", "\u0378", " " * 1_000_000])
    assert sure is not None
    assert unsure == [None] * 4


def test_bytes_of_tokens_are_those_of_their_characters() -> None:
    from tokenizers import decoders, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    decoder = decoders.ByteLevel()
    assert sorted(data for data in tokens_bytes(alphabet) if data) == [
        bytes([byte]) for byte in range(256)
    ]
    words = ["\u0120a\u00e9", "", "a\u4e2d", " ", "\U0001f642x", "\ud800", "\u0143", "\u0144", "b"]
    found = tokens_bytes(words)
    assert found == [b" a\xe9", b"", None, None, None, None, b"\xad", None, b"b"]
    letters = [letter for letter in alphabet if (tokens_bytes([letter])[0] or b"") < b"\x80"]
    for letter in letters:
        assert tokens_bytes([letter]) == [decoder.decode([letter]).encode()]


def test_a_token_that_no_merge_reaches_is_refused(small_tokenizer: Any) -> None:
    from tokenizers import models

    merges = [("a", "b"), ("b", "c"), ("a", "bc")]
    vocabulary = {name: id_ for id_, name in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    changed = copy.deepcopy(small_tokenizer)
    # Of "abc" the first merge takes the beginning, and no "bc" is left for the last.
    changed.backend_tokenizer.model = models.BPE(vocabulary, merges)
    with pytest.raises(
        UnsupportedTokenizerError, match=r"^token 'abc' cannot be reached by merges"
    ):
        built(changed)
    changed.backend_tokenizer.model = models.BPE(vocabulary, [*merges[1:], merges[0]])
    built(changed)


def test_sequences_that_do_nothing_are_read_as_nothing(
    variants: dict[str, Any], llama2_tokenizer: Any
) -> None:
    """As converters write them: the demo's tokenizer has an empty normalizer."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    empty, nothing = normalizers.Sequence([]), pre_tokenizers.Sequence([])
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated", invert=False)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    nested = pre_tokenizers.Sequence([nothing, pre_tokenizers.Sequence([split]), level])
    nfc = normalizers.Sequence([empty, normalizers.Sequence([normalizers.NFC()])])
    small = variants["gpt2"]
    for tokenizer, plain in (
        (with_backend(small, normalizer=empty), small),
        (with_backend(small, decoder=decoders.Sequence([decoders.ByteLevel()])), small),
        (with_backend(small, normalizer=nfc, pre_tokenizer=nested), variants["qwen"]),
    ):
        assert specification(tokenizer) == specification(plain)
        assert difference(tokenizer, built(tokenizer), []) == ""
        assert TokenWidths.of(specification(tokenizer)) is not None
    wrapped = copy.deepcopy(llama2_tokenizer)
    backend = wrapped.backend_tokenizer
    backend.normalizer = normalizers.Sequence([empty, backend.normalizer])
    assert specification(wrapped)["normalizer"] == specification(llama2_tokenizer)["normalizer"]
    bytes_apart = copy.deepcopy(small)
    bytes_apart.backend_tokenizer.model.byte_fallback = True  # It has no tokens for that.
    assert difference(bytes_apart, built(bytes_apart), []) == ""
    alone = with_backend(small, normalizer=empty, pre_tokenizer=nothing)
    with pytest.raises(UnsupportedTokenizerError, match="not a byte-level BPE"):
        built(alone)


def test_what_is_not_understood_is_refused_with_the_reason(
    small_tokenizer: Any, llama2_tokenizer: Any
) -> None:
    from tokenizers import AddedToken, normalizers, pre_tokenizers

    def reason(tokenizer: Any) -> str:
        with pytest.raises(UnsupportedTokenizerError) as error:
            built(tokenizer)
        return str(error.value)

    assert reason(llama2_tokenizer) == "normalizer Sequence"
    assert reason(with_backend(small_tokenizer, normalizer=normalizers.Lowercase())) == (
        "normalizer Lowercase"
    )
    spaces = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert reason(with_backend(small_tokenizer, pre_tokenizer=spaces)) == "not a byte-level BPE"
    punctuation = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert reason(with_backend(small_tokenizer, pre_tokenizer=punctuation)) == (
        "pre-tokenizer Punctuation, ByteLevel"
    )
    for token, words in (
        (AddedToken("<a>", lstrip=True), "token '<a>' strips its neighbours"),
        (AddedToken("<s>>", special=True), "token '<s>' begins token '<s>>'"),
    ):
        changed = copy.deepcopy(small_tokenizer)
        changed.add_tokens([token])
        assert reason(changed) == words


class Wrong:
    """Gives other ids for one text."""

    name = "wrong"

    def __init__(self, tokenizer: Any, text: str) -> None:
        self._engine = HuggingFaceEngine(tokenizer)
        self._text = text

    def encode(self, texts: Any) -> Any:
        ids = self._engine.encode(texts)
        return [each + (text == self._text) for text, each in zip(texts, ids, strict=True) if True]


def test_one_id_that_differs_is_seen(small_tokenizer: Any) -> None:
    sample = ["plain words", "other words"]
    assert difference(small_tokenizer, Wrong(small_tokenizer, "?"), sample) == ""
    found = difference(small_tokenizer, Wrong(small_tokenizer, "other words"), sample)
    assert found.startswith("its ids differ from the tokenizer's at token 0 of a text, near 'ot")


def test_an_engine_that_differs_is_not_used(
    small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataset_builders.encoding.tiktoken_engine as module

    spec = specification(small_tokenizer)
    sample = [f"text {n}" for n in range(200)]
    engine, reason = choose_engine(small_tokenizer, spec, "auto", sample)
    assert (engine.name, reason) == ("tiktoken", "")
    # The words would be split otherwise.
    monkeypatch.setattr(module, "_GPT2", module._GPT2.replace(r" ?\p{L}+", r"\p{L}+"))
    engine, reason = choose_engine(small_tokenizer, spec, "auto", sample)
    assert engine.name == "huggingface"
    assert reason.startswith("its ids differ")
    with pytest.raises(ConfigError, match="engine: tiktoken cannot be used: its ids differ"):
        choose_engine(small_tokenizer, spec, "tiktoken", sample)
    monkeypatch.undo()
    assert choose_engine(small_tokenizer, spec, "auto", ["word " * 200_000])[1] == ""
    engine, reason = choose_engine(small_tokenizer, spec, "auto", sample[1:])
    assert (engine.name, reason) == ("huggingface", "fewer than 200 conversations")


def test_rows_are_the_same_with_either_engine(small_tokenizer: Any) -> None:
    words = ["plain", "é\U0001f642", "\U00011de0", "\u0378x", "a" * 50, "<|im_end|> said"]
    talks = [
        Conversation.create(
            [Message("user", f"q {n}"), Message("assistant", words[n % 6] * 2, trained=True)]
        )
        for n in range(240)
    ]
    reports, rows = [], []
    for engine in ("huggingface", "tiktoken", "auto"):
        encoder: Any = Encoder(small_tokenizer, max_length=500, engine=engine)  # type: ignore[arg-type]
        made = encode_dataset(talks, encoder)
        reports.append(made.report)
        rows.append(made.dataset.to_list())
    assert rows[0] == rows[1] == rows[2]
    assert [report.engine for report in reports] == ["huggingface", "tiktoken", "tiktoken"]
    assert [report.by_reference for report in reports] == [0, 80, 80]
    assert [report.control_tokens for report in reports] == [40] * 3


def test_rows_of_every_chunk_are_confirmed(
    small_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [
        Conversation.create([Message("user", f"q {n}"), Message("assistant", "a", trained=True)])
        for n in range(300)
    ]
    encoder = Encoder(small_tokenizer, max_length=500)
    right = encode_dataset(talks, encoder)
    assert (right.report.engine, right.report.by_reference) == ("tiktoken", 0)

    # It agreed when it was chosen. Ids that do not add up to the text are not even used.
    monkeypatch.setattr(TiktokenEngine, "_encode", lambda *_: np.zeros(9, dtype=np.int32))
    made = encode_dataset(talks, encoder)
    assert made.report.by_reference == 300
    assert made.dataset.to_list() == right.dataset.to_list()
    # Those that do are found out.
    monkeypatch.undo()
    encode: Any = TiktokenEngine._encode

    def backwards(self: TiktokenEngine, text: str) -> Any:
        return encode(self, text)[::-1]

    monkeypatch.setattr(TiktokenEngine, "_encode", backwards)
    with pytest.raises(
        DataError, match=r"^the fast engine's ids differ .* set engine to huggingface$"
    ):
        encode_dataset(talks, encoder)


@pytest.mark.parametrize("name", ["smollm2", "llama2"])
def test_offsets_from_widths_are_the_tokenizers_own(
    request: pytest.FixtureRequest, shared: Path, name: str
) -> None:
    tokenizer = request.getfixturevalue(f"{name}_tokenizer")
    spec = SourceSpec(str(shared / "data/sharegpt/sharegpt_v3_sample.json"), "sharegpt", limit=40)
    renderer = Encoder(tokenizer, max_length=10**9).renderer
    texts = [renderer.render(item).text for item in load_source(spec).conversations]
    texts += ["<s>\n\U0001f602 x  y</s> z<s>", "a\u4e2d</s>\u0301\u00e9 \u2581\u2581"]
    widths = TokenWidths.of(specification(tokenizer))
    assert widths is not None
    reference = HuggingFaceEngine(tokenizer)
    exact = 0
    for text in texts:
        ids, offsets = reference.encode_with_offsets(text)
        bounds = widths.bounds(ids, len(text.encode()))
        if bounds is None:
            continue
        exact += 1
        at = np.cumsum([0, *(len(character.encode()) for character in text)])
        starts, ends = at[np.array(offsets)].T
        # A character that is spread over tokens has its whole range in each of them.
        assert (starts <= bounds.starts).all()
        assert (bounds.ends <= ends).all()
        whole = np.array([text[a:b].isascii() for a, b in offsets])
        assert (starts[whole] == bounds.starts[whole]).all()
        assert (ends[whole] == bounds.ends[whole]).all()
    assert exact >= len(texts) - 1


def test_a_row_longer_than_the_tokenizers_last_limit_is_whole(small_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(small_tokenizer)
    # A trainer's own call leaves such settings in the backend.
    tokenizer(["a b c d", "e"], truncation=True, padding="max_length", max_length=3)
    talk = Conversation.create([Message("user", "q" * 99), Message("assistant", "a", trained=True)])
    (row,) = Encoder(tokenizer, max_length=500).encode([talk], TokenReport())
    (expected,) = Encoder(small_tokenizer, max_length=500).encode([talk], TokenReport())
    assert row.input_ids.tolist() == expected.input_ids.tolist()


@pytest.mark.slow
def test_all_characters_are_split_alike_or_left_to_the_tokenizer(
    variants: dict[str, Any], make_tokenizer: Callable[..., Any]
) -> None:
    characters = [
        chr(code)
        for code in range(0x110000)
        if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) not in ("Cn", "Co")
    ]
    assert not _unsure()[[ord(character) for character in "aé中🙂"]].any()
    for name in ("smollm2", "llama3"):
        engine = built(variants[name])
        reference = HuggingFaceEngine(variants[name])
        for start in range(0, len(characters), 10_000):
            texts = [
                f"a{each}b {each}1{each}{each}  {each}\n{each}'s"
                for each in characters[start : start + 10_000]
            ]
            expected = reference.encode(texts)
            for text, ids, own in zip(texts, engine.encode(texts), expected, strict=True):
                assert own is not None
                assert ids is None or ids.tolist() == own.tolist(), (name, text)
