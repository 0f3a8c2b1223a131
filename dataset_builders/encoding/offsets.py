"""Compute token offsets in the text from the ids alone.

The tokens of a byte-level BPE, laid end to end, are the bytes of the text, so a
cumulative sum of their widths gives exact offsets without asking the tokenizer for
them. Llama-2's type is the same except for the blank that it adds before every piece of text
between control tokens. For other tokenizers the encoding's own offsets are used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_builders.encoding.collector import collector_paused
from dataset_builders.encoding.token_rows import IGNORE_INDEX, Ints
from dataset_builders.masks.spans import Span

Positions = npt.NDArray[np.int64]

_BLANK = "▁"
_LLAMA_NORMALIZER = [
    {"type": "Prepend", "prepend": _BLANK},
    {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK},
]
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_STEPS = ("normalizers", "pretokenizers", "processors", "decoders")
"""Key of a sequence's steps in each part of tokenizer.json."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Start and end of each token, in characters or in bytes.

    Attributes:
        starts: (T,) int64, non-decreasing.
        ends: (T,) int64, non-decreasing.
    """

    starts: Positions
    ends: Positions

    @classmethod
    def of_characters(cls, offsets: Sequence[tuple[int, int]]) -> Bounds:
        """Build bounds from a tokenizer's own offsets."""
        edges = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        # Tokenizers that trim white space give a token of nothing else an empty range.
        return cls(np.maximum.accumulate(edges[:, 0]), np.maximum.accumulate(edges[:, 1]))


def specification(tokenizer: Any) -> dict[str, Any]:
    """Return a fast tokenizer's tokenizer.json; empty if it cannot be serialised.

    Its parts are simplified first, see `simplified`.
    """
    try:
        with collector_paused():
            spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception:  # the backend knows no other class; a component in Python is one cause
        return {}
    return spec | {name: simplified(spec.get(name)) for name in _PARTS}


def simplified(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a part of a tokenizer without sequences that have no effect.

    An empty sequence is no part, one of a single step is that step, and one within another is
    its steps. Converters write all of these; what is left says what the part does.
    """
    if part is None or part.get("type") != "Sequence":
        return part
    inside = next(name for name in _STEPS if name in part)
    steps: list[dict[str, Any]] = []
    for step in map(simplified, part[inside]):
        nested = step is not None and step.get("type") == "Sequence"
        steps += step[inside] if step is not None and nested else [step] if step else []
    return {**part, inside: steps} if len(steps) > 1 else steps[0] if steps else None


class TokenWidths:
    """Number of bytes of each token.

    Attributes:
        nfc: Whether the tokenizer normalises its text to NFC; widths then hold only for
            text that is in this form.

    Args:
        widths: (V,) int64, bytes of each token, by id; ids without a text have 0.
        added: (V,) bool, whether a token is matched before the text is split up.
        blank: Whether the tokenizer puts a blank before every text between added tokens.
        nfc: See the attribute.
    """

    def __init__(
        self, widths: Positions, added: npt.NDArray[np.bool_], *, blank: bool, nfc: bool
    ) -> None:
        self._widths = widths
        self._added = added
        self._blank = blank
        self.nfc = nfc

    @classmethod
    def of(cls, spec: dict[str, Any]) -> TokenWidths | None:
        """Compute a tokenizer's token widths from its specification; None if unsupported."""
        if not spec or spec["model"]["type"] != "BPE":
            return None
        model, normalizer = spec["model"], spec["normalizer"]
        blank = (
            normalizer is not None
            and normalizer.get("normalizers") == _LLAMA_NORMALIZER
            and spec["pre_tokenizer"] is None
        )
        nfc = normalizer == {"type": "NFC"}
        if not blank and not (is_byte_level(spec) and (nfc or normalizer is None)):
            return None
        vocabulary: dict[str, int] = model["vocab"]
        matched = {token["id"]: token["content"] for token in spec["added_tokens"]}
        widths = np.zeros(max([*vocabulary.values(), *matched]) + 1, dtype=np.int64)
        widths[list(vocabulary.values())] = _widths(list(vocabulary), blank)
        for id_, content in matched.items():
            widths[id_] = len(content.encode())
        added = np.zeros(len(widths), dtype=np.bool_)
        added[list(matched)] = True
        return cls(widths, added, blank=blank, nfc=nfc)

    def bounds(self, ids: Ints, total: int) -> Bounds | None:
        """Return offsets in bytes; None if the tokens do not add up to the text.

        Args:
            ids: (T,) int32, the tokens of a text.
            total: Bytes of the text in UTF-8.
        """
        widths = self._widths[ids]
        if self._blank and len(ids):
            text = ~self._added[ids]
            first = text & np.concatenate([[True], ~text[:-1]])
            widths -= first
        ends = np.cumsum(widths)
        if len(ids) and (ends[-1] != total or widths.min() < 0):
            return None
        starts = ends - widths
        # A blank that is not in the text belongs to the character after it.
        return Bounds(starts, np.maximum(ends, starts + 1) if self._blank else ends)


def is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer's specification maps text to bytes without adding any."""
    pre = spec["pre_tokenizer"] or {}
    parts = pre.get("pretokenizers", [pre])
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    return len(levels) == 1 and not levels[0]["add_prefix_space"]


def tokens_bytes(tokens: Sequence[str]) -> list[bytes | None]:
    """Bytes of byte-level tokens; none for each that is not written in their alphabet."""
    values, edges = _byte_values(tokens)
    data = values.astype(np.uint8).tobytes()
    found: list[bytes | None] = [data[start:end] for start, end in pairwise(edges.tolist())]
    for number in _not_bytes(values, edges).tolist():
        found[number] = None
    return found


def _byte_values(tokens: Sequence[str]) -> tuple[npt.NDArray[np.int16], Positions]:
    """(C,) the byte of each character of all tokens, or -1; (N + 1,) where each token ends."""
    codes = np.frombuffer("".join(tokens).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    alphabet = _alphabet()
    edges = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)), out=edges[1:])
    return alphabet[np.minimum(codes, len(alphabet) - 1)], edges


def _not_bytes(values: npt.NDArray[np.int16], edges: Positions) -> Positions:
    """Numbers of the tokens with a character that stands for no byte."""
    (strange,) = np.nonzero(values < 0)
    return edges.searchsorted(strange, side="right") - 1


@cache
def _alphabet() -> npt.NDArray[np.int16]:
    """Return the byte of each character of GPT-2's byte-level alphabet.

    Characters that stand for no byte, and all behind the table's end, have -1.
    """
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(kept)]
    table = np.full(256 + len(moved) + 1, -1, dtype=np.int16)
    table[kept] = kept
    table[256:-1] = moved
    return table


def _widths(tokens: Sequence[str], blank: bool) -> Positions:
    """(N,) bytes that each token stands for; 0 where it stands for no text."""
    if blank:
        return np.array([_blank_width(token) for token in tokens], dtype=np.int64)
    values, edges = _byte_values(tokens)
    widths = np.diff(edges)
    widths[_not_bytes(values, edges)] = 0
    return widths


def _blank_width(token: str) -> int:
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return 1 if is_byte else len(token.replace(_BLANK, " ").encode())


def to_bytes(text: str, spans: Sequence[Span], total: int) -> Sequence[Span]:
    """Convert spans of characters to spans of bytes; `total` is the text's number of bytes."""
    if len(text) == total:
        return spans
    found = []
    position = offset = 0
    for span in spans:
        start = offset + len(text[position : span.start].encode())
        end = start + len(text[span.start : span.end].encode())
        found.append(Span(start, end))
        position, offset = span.end, end
    return found


def label(ids: Ints, bounds: Bounds, spans: Sequence[Span]) -> Ints:
    """Label a row: tokens that overlap a span are trained on.

    Overlap, not containment: a byte-level token may begin with the blank before the
    span, and one character may be spread over several tokens.

    Args:
        ids: (T,) int32.
        bounds: Where the tokens stand.
        spans: Trained ranges in the unit of `bounds`, in order.

    Returns:
        (T,) int32, the id where trained, -100 elsewhere.
    """
    labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int32)
    if spans:
        edges = np.array(spans, dtype=np.int64)
        first = bounds.ends.searchsorted(edges[:, 0], side="right")
        last = bounds.starts.searchsorted(edges[:, 1], side="left")
        for start, stop in zip(first.tolist(), last.tolist(), strict=True):
            labels[start:stop] = ids[start:stop]
    return labels
