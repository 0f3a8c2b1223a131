"""Byte-level BPE with tiktoken, built from a tokenizer's vocabulary, merges and pattern.

tiktoken (MIT) merges by the rank of the token that a merge gives, Hugging Face by the
rank of the pair. The two agree where each token has one merge, or several in a row, and
where the shortcut that tiktoken takes for a word that is a token changes nothing. Unsupported
tokenizers are rejected, and `engines` compares the ids before any are used.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_builders.encoding.offsets import is_byte_level, tokens_bytes
from dataset_builders.encoding.token_rows import Ints

# GPT-2's pattern. Alternatives without look-ahead come first in a group of their own: tiktoken uses
# a much faster matcher for such a group, and only white space is left to the slow one.
_WORDS = r" ?\p{L}+|'(?:[stmd]|re|ve|ll)| ?[^\s\p{L}\p{N}]+"
_GPT2 = rf"(?:{_WORDS}| ?\p{{N}}+)|\s+(?!\S)|\s+"
# Digits are taken out before the pattern runs, so a digit ends a run of white space as
# the end of the text does.
_GPT2_SINGLE_DIGITS = rf"(?:{_WORDS}|\p{{N}})|\s+(?![^\s\p{{N}}])|\s+"

# Letters of Unicode 17, which tiktoken's expressions know and tokenizers' do not yet; a
# test sweeps all characters for more.
_NEW_LETTERS = (*range(0x11DE0, 0x11DEA), *range(0x16FF4, 0x16FF7))

_SINGLE_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Notation of a byte in SentencePiece-style vocabularies."""


class UnsupportedTokenizerError(ValueError):
    """The tokenizer cannot be rebuilt in tiktoken; the message states why."""


class TiktokenEngine:
    """Engine that runs tiktoken with a tokenizer's own vocabulary.

    Args:
        encoding: The `tiktoken.Encoding`; its ids are ranks.
        ids: (R,) int32, the tokenizer's id of each rank; -1 for a byte it has no token for.
        added: Contents of the tokens that are matched before the text is split up.
        nfc: Whether the tokenizer normalises text to NFC.
    """

    name = "tiktoken"

    def __init__(self, encoding: Any, ids: Ints, added: frozenset[str], nfc: bool) -> None:
        self._encoding = encoding
        self._ids = ids
        self._added = added
        self._nfc = nfc
        # Byte-level vocabularies that hold all bytes need no look for missing ones.
        self._has_all_bytes = bool((ids >= 0).all())

    def encode(self, texts: Sequence[str]) -> list[Ints | None]:
        """Return the ids (T,) of each text; None where the reference has to decide."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Ints | None:
        if not text.isascii() and (
            not _is_sure(text) or (self._nfc and not unicodedata.is_normalized("NFC", text))
        ):
            return None
        try:
            ranks = self._encoding.encode_to_numpy(
                text, allowed_special=self._added, disallowed_special=()
            )
        except ValueError:  # very long runs of white space exceed its expressions' stack
            return None
        ids: Ints = self._ids[ranks]
        if not self._has_all_bytes and len(ids) and ids.min() < 0:
            return None
        return ids


def build(tokenizer: Any, spec: dict[str, Any]) -> TiktokenEngine:
    """Rebuild a fast byte-level BPE tokenizer.

    Args:
        tokenizer: The tokenizer.
        spec: Its `specification`.

    Raises:
        UnsupportedTokenizerError: It is of another type, or tiktoken is not installed.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise UnsupportedTokenizerError(
            "tiktoken is not installed: pip install 'agenttuning-plugin[fast]'"
        ) from error
    if not spec:
        raise UnsupportedTokenizerError("the tokenizer cannot be serialised")
    pattern = _pattern(spec)
    added = _added_tokens(spec)
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    spelled = dict(zip(vocabulary, tokens_bytes(list(vocabulary)), strict=True))
    ranks = _ranks(spec["model"], spelled, tokenizer.backend_tokenizer)
    names = dict(zip(spelled.values(), vocabulary.values(), strict=True))
    ids = [names.get(token, -1) for token in ranks]
    special = {content: len(ids) + number for number, content in enumerate(added)}
    ids += added.values()
    encoding = tiktoken.Encoding(
        "agenttuning", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )
    nfc = spec["normalizer"] is not None
    return TiktokenEngine(encoding, np.array(ids, dtype=np.int32), frozenset(added), nfc)


def _pattern(spec: dict[str, Any]) -> str:
    """Return the regular expression that splits text, for an engine with no other step."""
    if spec["normalizer"] not in (None, {"type": "NFC"}):
        raise UnsupportedTokenizerError(f"normalizer {spec['normalizer'].get('type')}")
    if not is_byte_level(spec):
        raise UnsupportedTokenizerError("not a byte-level BPE")
    pre = spec["pre_tokenizer"]
    *before, level = pre.get("pretokenizers", [pre])
    if level["type"] == "ByteLevel" and level["use_regex"]:
        if not before:
            return _GPT2
        if before == [{"type": "Digits", "individual_digits": True}]:
            return _GPT2_SINGLE_DIGITS
    elif level["type"] == "ByteLevel" and len(before) == 1:
        split = before[0]
        kind = split["type"], split.get("behavior"), split.get("invert")
        if kind == ("Split", "Isolated", False) and "Regex" in split["pattern"]:
            return str(split["pattern"]["Regex"])
    kinds = ", ".join(part["type"] for part in [*before, level])
    raise UnsupportedTokenizerError(f"pre-tokenizer {kinds}")


def _added_tokens(spec: dict[str, Any]) -> dict[str, int]:
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    for token in spec["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise UnsupportedTokenizerError(f"token {token['content']!r} strips its neighbours")
        if token["normalized"] and not token["content"].isascii():
            raise UnsupportedTokenizerError(f"token {token['content']!r} is normalised")
    # Where one token begins another, tiktoken does not promise to take the longer one.
    for first, second in pairwise(sorted(added)):
        if second.startswith(first):
            raise UnsupportedTokenizerError(f"token {first!r} begins token {second!r}")
    return added


def _ranks(
    model: dict[str, Any], spelled: dict[str, bytes | None], backend: Any
) -> dict[bytes, int]:
    """Return each token's rank in merge order; the 256 bytes come first.

    Args:
        model: The specification of the model.
        spelled: Bytes of each token of the vocabulary.
        backend: The tokenizer's backend.
    """
    settings = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    # Byte fallback has no effect without single-byte tokens.
    falls_back = model.get("byte_fallback") and any(map(spelled.__contains__, _SINGLE_BYTES))
    if model["type"] != "BPE" or falls_back or any(model.get(name) for name in settings):
        raise UnsupportedTokenizerError("the model is not a plain BPE")
    ranks = {bytes([byte]): byte for byte in range(256)}
    last, names = b"", []
    for pair in model["merges"]:
        name = "".join(pair.split(" ") if isinstance(pair, str) else pair)
        token = spelled.get(name)
        if token is None:
            raise UnsupportedTokenizerError(f"merge {name!r} gives no byte-level token")
        if token == last:
            continue
        if token in ranks:
            raise UnsupportedTokenizerError(f"token {name!r} comes from merges of unlike rank")
        ranks[token] = len(ranks)
        last = token
        names.append(name)
    if not model["ignore_merges"]:
        # tiktoken takes a word that is a token as the token, however it would be merged.
        for name, made in zip(names, map(backend.model.tokenize, names), strict=True):
            if len(made) != 1:
                raise UnsupportedTokenizerError(f"token {name!r} cannot be reached by merges")
    return ranks


@cache
def _unsure() -> npt.NDArray[np.bool_]:
    """Return (0x110000,) bool: characters whose class depends on the Unicode version."""
    unsure = np.array(
        [unicodedata.category(chr(code)) in ("Cn", "Cs") for code in range(sys.maxunicode + 1)]
    )
    unsure[list(_NEW_LETTERS)] = True
    return unsure


def _is_sure(text: str) -> bool:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return not _unsure()[codes].any()
