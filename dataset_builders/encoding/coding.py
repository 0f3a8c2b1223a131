"""Encode renderings as ids and labels, by the fastest method that is exact for each.

Ids come from the engine, and offsets from the ids alone where their widths add up to
the text; where either is uncertain, the tokenizer is used. A rendering with literals is split at
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builders.encoding.engines import Engine, HuggingFaceEngine
from dataset_builders.encoding.escaped_tokens import LiteralEncoder
from dataset_builders.encoding.offsets import Bounds, TokenWidths, label, specification, to_bytes
from dataset_builders.encoding.token_rows import Ints, TokenRow
from dataset_builders.errors import DataError, MaskError
from dataset_builders.masks.spans import Rendered, Span


@dataclass(frozen=True, slots=True)
class Coded:
    """A rendered conversation as tokens.

    Attributes:
        row: Its ids and labels.
        ends: For each trained turn, the tokens up to its end.
        rendered: What was encoded.
        by_reference: Whether the tokenizer encoded it instead of the fast engine.
    """

    row: TokenRow
    ends: list[int]
    rendered: Rendered
    by_reference: bool


class Coder:
    """Encodes renderings.

    Attributes:
        spec: The tokenizer's `specification`.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._reference = HuggingFaceEngine(tokenizer)
        self.spec = specification(tokenizer)
        self._widths = TokenWidths.of(self.spec)
        self._literals: LiteralEncoder | None = None

    def encode(self, rendered: Sequence[Rendered], engine: Engine) -> list[Coded | MaskError]:
        """Encode renderings together; returns an error for each that cannot be encoded."""
        sizes = [_size(item.text) for item in rendered]
        plain = [
            number for number, item in enumerate(rendered) if sizes[number] and not item.literals
        ]
        found = dict(zip(plain, engine.encode([rendered[n].text for n in plain]), strict=True))
        return [
            self._coded(item, size, found.get(number), fast=engine.name != HuggingFaceEngine.name)
            for number, (item, size) in enumerate(zip(rendered, sizes, strict=True))
        ]

    def confirm(self, coded: Sequence[Coded]) -> None:
        """Compare rows with the tokenizer's own encoding of the same texts.

        Raises:
            DataError: The ids differ, so the fast engine must not be used on these data.
        """
        for item in coded:
            if item.rendered.literals:
                continue
            (ids,) = self._reference.encode([item.rendered.text])
            if ids is None or not np.array_equal(ids, item.row.input_ids):
                raise DataError(
                    "the fast engine's ids differ from the tokenizer's, in the text "
                    f"{item.rendered.text[:60]!r}...: set engine to huggingface"
                )

    def off_prompt(
        self, row: TokenRow, prompts: Sequence[Rendered], engine: Engine, masked: bool = False
    ) -> int:
        """Count the prompts that the row does not continue with a trained turn.

        Ids are compared, not characters: a tokenizer may split the end of a prompt differently when
        an answer follows. `masked`: see `TokenRow.has_turn_behind`.
        """
        coded = self.encode(prompts, engine)
        return sum(
            isinstance(item, MaskError) or not row.has_turn_behind(item.row.input_ids, masked)
            for item in coded
        )

    def prompt_ids(self, rendered: Rendered) -> list[int]:
        """Encode a prompt with the tokenizer itself.

        Raises:
            MaskError: The text cannot be encoded.
        """
        (coded,) = self.encode([rendered], self._reference)
        if isinstance(coded, MaskError):
            raise coded
        ids: list[int] = coded.row.input_ids.tolist()
        return ids

    def _coded(
        self, rendered: Rendered, size: int | None, ids: Ints | None, *, fast: bool
    ) -> Coded | MaskError:
        text = rendered.text
        spans: Sequence[Span] = rendered.spans
        if size is None:
            return _not_unicode(text)
        bounds: Bounds | None = None
        if rendered.literals:
            try:
                if self._literals is None:
                    self._literals = LiteralEncoder(self._tokenizer, self.spec)
                ids, bounds = self._literals.encode(rendered)
            except MaskError as error:
                return error
        elif ids is not None and self._widths is not None:
            bounds = self._widths.bounds(ids, size)
            spans = to_bytes(text, spans, size) if bounds else spans
        by_reference = fast and bounds is None
        if bounds is None:
            ids, offsets = self._reference.encode_with_offsets(text)
            bounds = Bounds.of_characters(offsets)
        assert ids is not None
        return _labelled(rendered, ids, bounds, spans, by_reference)


def _labelled(
    rendered: Rendered, ids: Ints, bounds: Bounds, spans: Sequence[Span], by_reference: bool
) -> Coded:
    row = TokenRow(ids, label(ids, bounds, spans))
    last = np.array([span.end for span in spans], dtype=np.int64)
    ends: list[int] = bounds.starts.searchsorted(last, side="left").tolist()
    return Coded(row, ends, rendered, by_reference)


def _size(text: str) -> int | None:
    """Return the size of a text in UTF-8 bytes; None if it holds a lone surrogate."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def _not_unicode(text: str) -> MaskError:
    at, found = next(
        (number, character)
        for number, character in enumerate(text)
        if "\ud800" <= character <= "\udfff"
    )
    return MaskError(
        f"found a lone surrogate U+{ord(found):04X} at character {at} of the rendering, "
        "expected Unicode text",
        "lone_surrogate",
    )
