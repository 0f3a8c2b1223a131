"""Encode texts whose message content spells control tokens, as plain characters.

A text is split at these ranges. Outside it is encoded normally; inside, and from there to the next
control token of the template, by the tokenizer's model alone: no control token is matched, and no
blank is added before the piece, as the text has none there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from dataset_builders.encoding.engines import HuggingFaceEngine
from dataset_builders.encoding.offsets import Bounds, is_byte_level
from dataset_builders.encoding.token_rows import Ints
from dataset_builders.errors import MaskError
from dataset_builders.masks.spans import Rendered


class LiteralEncoder:
    """Encodes rendered conversations whose `literals` must stay text.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        spec: Its `specification`.

    Raises:
        MaskError: The tokenizer cannot be serialised, so no copy without control tokens can be
            made.
    """

    def __init__(self, tokenizer: Any, spec: dict[str, Any]) -> None:
        if not spec:
            raise MaskError(
                "encoding a control token as text needs a tokenizer that can be serialised",
                "control_token",
            )
        added = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items()}
        self._engine = HuggingFaceEngine(tokenizer)
        # A byte-level tokenizer supports this by a flag; a copy costs a third of a second.
        able = is_byte_level(spec) and all(token["special"] for token in spec["added_tokens"])
        self._bare = None if able else _without_control_tokens(spec)
        self._added = np.array(sorted(added), dtype=np.int32)
        contents = sorted(filter(None, added.values()), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, contents)) or r"(?!)")

    def encode(self, rendered: Rendered) -> tuple[Ints, Bounds]:
        """Return ids (T,) and the characters of each token.

        Raises:
            MaskError: The tokenizer can encode a literal only as the control token.
        """
        ids: list[Ints] = []
        offsets: list[tuple[int, int]] = []
        for start, end, plain in self._pieces(rendered):
            text = rendered.text[start:end]
            found, places = (
                self._encode_plain(text) if plain else self._engine.encode_with_offsets(text)
            )
            ids.append(found)
            offsets += [(start + first, start + last) for first, last in places]
        return np.concatenate(ids), Bounds.of_characters(offsets)

    def _pieces(self, rendered: Rendered) -> Iterator[tuple[int, int, bool]]:
        """Return ranges of the text and whether each is encoded by the model alone."""
        text, position = rendered.text, 0
        for literal in (*rendered.literals, None):
            end = len(text) if literal is None else literal.start
            if position:
                found = self._control.search(text, position, end)
                stop = found.start() if found else end
                if stop > position:
                    yield position, stop, True
                position = stop
            if end > position:
                yield position, end, False
            if literal is not None:
                yield literal.start, literal.end, True
                position = literal.end

    def _encode_plain(self, text: str) -> tuple[Ints, list[tuple[int, int]]]:
        ids, offsets = self._by_model(text)
        if np.isin(ids, self._added).any():
            # Some models hold the control tokens as words, too; their characters are none.
            parts = [self._by_model(character)[0] for character in text]
            ids = np.concatenate(parts)
            offsets = [(at, at + 1) for at, part in enumerate(parts) for _ in part]
            if np.isin(ids, self._added).any():
                raise MaskError(f"{text!r} can be encoded only as a control token", "control_token")
        return ids, offsets

    def _by_model(self, text: str) -> tuple[Ints, list[tuple[int, int]]]:
        if self._bare is None:
            return self._engine.encode_with_offsets(text, control_tokens=False)
        encoding = self._bare.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, dtype=np.int32), encoding.offsets


def _without_control_tokens(spec: dict[str, Any]) -> Any:
    """Return a copy of the backend that matches no control token and adds nothing to a text."""
    from tokenizers import Tokenizer

    bare = {
        **spec,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "normalizer": _bare(spec["normalizer"], "normalizers"),
        "pre_tokenizer": _bare(spec["pre_tokenizer"], "pretokenizers"),
    }
    return Tokenizer.from_str(json.dumps(bare))


def _bare(part: dict[str, Any] | None, inside: str) -> dict[str, Any] | None:
    """Return a step of the tokenizer without its text prefix."""
    if part is None or part["type"] == "Prepend":
        return None
    if part["type"] == "Sequence":
        steps = [_bare(step, inside) for step in part[inside]]
        return {**part, inside: [step for step in steps if step is not None]}
    if part["type"] == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return part
