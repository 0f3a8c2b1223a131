"""Tokenizing engines: the tokenizer itself, or a faster engine verified to be equal to it.

The reference is the tokenizer's own backend. The fast engine (`tiktoken_engine`) is
used only where it gave the same ids on the user's own data and on a list of strings
that engines differ on; and it returns single texts that it is not sure of to the reference.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol, get_args

import numpy as np

from dataset_builders.encoding.token_rows import Ints
from dataset_builders.errors import ConfigError

LOG = logging.getLogger(__name__)

SAMPLE = 64
"""Number of conversations on which the fast engine is verified against the tokenizer."""

_FEW, _MUCH = 200, 1_000_000
# Minimum conversations and characters for which the fast engine is worth its startup cost.

EngineName = Literal["auto", "tiktoken", "huggingface"]
ENGINES: tuple[str, ...] = get_args(EngineName)


class Engine(Protocol):
    """Encodes texts in which control tokens are written out."""

    name: str

    def encode(self, texts: Sequence[str]) -> list[Ints | None]:
        """Return the ids (T,) of each text, without added tokens; None where uncertain."""
        ...


class HuggingFaceEngine:
    """The tokenizer's own backend: the reference.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
    """

    name = "huggingface"

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer

    def encode(self, texts: Sequence[str]) -> list[Ints | None]:
        """Return the ids (T,) of each text."""
        self._ready()
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def encode_with_offsets(
        self, text: str, control_tokens: bool = True
    ) -> tuple[Ints, list[tuple[int, int]]]:
        """Return the ids (T,) of a text and the character range of each token.

        Args:
            text: The text.
            control_tokens: Whether text that spells a control token becomes that token.
        """
        self._ready(control_tokens)
        encoding = self._backend.encode(text, add_special_tokens=False)
        self._ready()
        return np.array(encoding.ids, dtype=np.int32), encoding.offsets

    def _ready(self, control_tokens: bool = True) -> None:
        # As every call of the tokenizer does: what an earlier one left set would cut rows.
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()
        if self._backend.encode_special_tokens == control_tokens:
            self._backend.encode_special_tokens = not control_tokens


def choose_engine(
    tokenizer: Any, spec: dict[str, Any], name: EngineName, texts: Sequence[str]
) -> tuple[Engine, str]:
    """Choose the engine for a tokenizer, based on a sample.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        spec: Its `specification`.
        name: "huggingface" for the reference; "auto" for the fast engine where it is
            installed, gives the same ids and is worth its startup (about half a second); "tiktoken"
            to raise an error otherwise.
        texts: Rendered conversations of the user's data; the first are the sample.

    Returns:
        The engine, and why it is not the fast one, or "".

    Raises:
        ConfigError: The fast engine was requested and cannot be used.
    """
    if name == "huggingface":
        return HuggingFaceEngine(tokenizer), ""
    few = len(texts) < _FEW and sum(map(len, texts)) < _MUCH
    if name == "auto" and few:
        return HuggingFaceEngine(tokenizer), f"fewer than {_FEW} conversations"
    from dataset_builders.encoding.tiktoken_engine import UnsupportedTokenizerError, build

    try:
        engine = build(tokenizer, spec)
        if found := difference(tokenizer, engine, texts[:SAMPLE]):
            raise UnsupportedTokenizerError(found)
    except UnsupportedTokenizerError as error:
        if name == "tiktoken":
            raise ConfigError(f"engine: tiktoken cannot be used: {error}") from error
        LOG.info("fast engine not used, the tokenizer encodes: %s", error)
        return HuggingFaceEngine(tokenizer), str(error)
    return engine, ""


def difference(tokenizer: Any, engine: Engine, sample: Sequence[str]) -> str:
    """Compare an engine with the tokenizer.

    Args:
        tokenizer: The reference.
        engine: The engine.
        sample: Texts of the user's data.

    Returns:
        A message about the first text on which they differ, or "".
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = [*sample, *difficult_texts(added)]
    expected = HuggingFaceEngine(tokenizer).encode(texts)
    for ids, other in zip(expected, engine.encode(texts), strict=True):
        if other is None or ids is None or np.array_equal(ids, other):
            continue
        length = min(len(ids), len(other))
        (unequal,) = np.nonzero(ids[:length] != other[:length])
        at = int(unequal[0]) if len(unequal) else length
        near = tokenizer.decode(ids[max(0, at - 3) : at + 3].tolist())
        return f"its ids differ from the tokenizer's at token {at} of a text, near {near!r}"
    return ""


def difficult_texts(added_tokens: Sequence[str]) -> list[str]:
    """Texts that tokenizers tend to split differently."""
    texts = list(_texts_of_categories())
    texts += [
        "",
        " ",
        "\n",
        "it's I'll WE'RE you'VE he'd 'S 's\u2019s don't'",
        "0 00 000 12345 1.5 1,000 3\u00bd \u0664\u0662 \u00b2\u2460 a1b2  3 \n4\t5",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \u2764\ufe0f",
        " a  b   c    d\t\te \n f\n\n g \r\n\r\n h\u00a0\u00a0i\u3000j\u2003 k  ",
        "\u4f60\u597d\uff0c\u4e16 \u65e5\u672c\u8a9e\u30c6\u30ad \ud55c\uad6d\uc5b4",
        "e\u0301 o\u0308\u0301 \u0915\u094d\u0937 \u0e01\u0e33 Z\u0351\u036b a\u030a\u212b",
        "def f(x):\n    return  {'a': [1,2], \"b\":x}  # ok\n\n\n",
        "https://a.b/c?d=e&f=%20 <a href='x'>&amp;</a> C:\\x\\y $1.00 #1 @x",
    ]
    texts += [f"a{token}b {token} {token}{token}\n{token}1" for token in added_tokens]
    texts += [token[:-1] + " " + token[1:] for token in added_tokens if len(token) > 1]
    return texts


@cache
def _texts_of_categories() -> tuple[str, ...]:
    """For each general category of characters a text with many of them."""
    categories: dict[str, list[str]] = {}
    for code in range(0x30000):
        character = chr(code)
        group = categories.setdefault(unicodedata.category(character), [])
        # Thinned out, or Chinese and Hangul would be nearly all of it.
        if len(group) < 32 or code % 997 == 0:
            group.append(character)
    del categories["Cs"]
    return tuple(
        "".join(f"a{character}b {character}1{character}  {character}\n" for character in group)
        for group in categories.values()
    )


def check_engine_name(name: str) -> None:
    """Raise a ConfigError unless the engine exists."""
    if name not in ENGINES:
        raise ConfigError(f"engine: found {name!r}, expected one of {', '.join(ENGINES)}")
