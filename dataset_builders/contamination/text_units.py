"""Units in which texts are compared: words, or the tokens of a tokenizer."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np

from dataset_builders.contamination.ngram_matching import FIRST_TOKEN, UNKNOWN, Tokens
from dataset_builders.errors import ConfigError

_WORD = re.compile(r"\w+")


class Units(Protocol):
    """Splits texts into comparable units.

    Attributes:
        name: Name of one unit.
    """

    name: str

    def of_sample(self, text: str) -> Tokens:
        """Return the (N,) numbers of an evaluation sample's units."""
        ...

    def of_record(self, text: str) -> Tokens:
        """Return the (N,) numbers of a training record's units, after all samples'."""
        ...

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where each unit starts and ends, in characters."""
        ...


class WordUnits:
    """Words, numbered in the order in which the samples contain them.

    A word is a run of letters, digits and underscores, ignoring case.
    """

    name = "word"

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of_sample(self, text: str) -> Tokens:
        """Return the (N,) numbers of the words; new words get new numbers."""
        numbers = self._numbers
        ids = [numbers.setdefault(word, FIRST_TOKEN + len(numbers)) for word in _words(text)]
        return np.array(ids, np.int64)

    def of_record(self, text: str) -> Tokens:
        """Return the (N,) numbers of the words, `UNKNOWN` for those in no sample."""
        get = self._numbers.get
        return np.array([get(word, UNKNOWN) for word in _words(text)], np.int64)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where each word starts and ends, in characters."""
        return [match.span() for match in _WORD.finditer(text)]


def _words(text: str) -> list[str]:
    # Folding a whole text may tear a word: of some letters it makes a letter and a mark.
    if text.isascii():
        return _WORD.findall(text.lower())
    return [word.casefold() for word in _WORD.findall(text)]


class TokenizerUnits:
    """The tokens of a tokenizer, without special ones.

    Args:
        tokenizer: A Hugging Face tokenizer that the tokenizers library runs.

    Raises:
        ConfigError: It is a slow tokenizer, which gives no token offsets.
    """

    name = "token"

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError("tokenizer: found a slow one, expected one of the tokenizers library")
        self._tokenizer = tokenizer

    def of_sample(self, text: str) -> Tokens:
        """Return the (N,) numbers of the tokens: their ids plus an offset."""
        return np.array(self._encode(text)["input_ids"], np.int64) + FIRST_TOKEN

    def of_record(self, text: str) -> Tokens:
        """Return the (N,) numbers of the tokens: their ids plus an offset."""
        return self.of_sample(text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where each token starts and ends, in characters."""
        return [(start, end) for start, end in self._encode(text)["offset_mapping"]]

    def _encode(self, text: str) -> Any:
        return self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
