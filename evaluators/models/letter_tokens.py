"""Find the tokens that represent a text, in any context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataset_builders.errors import ConfigError

_ANCHOR = "x"
_LONGEST_BLANKS = 4
"""Characters of a token beyond the text's own: a blank may be several bytes."""


def tokens_writing(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens that write each text alone, with or without blanks around it.

    A text on its own is not encoded as it is in its context: SentencePiece puts a blank
    before it ("▁A"), while after a line break a model writes "A". So the vocabulary is
    searched by what each token is decoded to after another one.

    Args:
        tokenizer: The tokenizer.
        texts: Such as "A".

    Returns:
        Ids of at least one token for every text.

    Raises:
        ConfigError: No single token writes one of them.
    """
    anchor = list(tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"])
    before = tokenizer.decode(anchor)
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder))
    tokens = tokenizer.convert_ids_to_tokens(ids)
    longest = 3 * max(map(len, texts)) + _LONGEST_BLANKS
    found: dict[str, list[int]] = {text: [] for text in texts}
    for number, token in zip(ids, tokens, strict=True):
        if not isinstance(token, str) or len(token) > longest or not _may_write(token, texts):
            continue
        written = tokenizer.decode([*anchor, number])
        if written.startswith(before) and (text := written[len(before) :].strip()) in found:
            found[text].append(number)
    if lacking := [text for text, numbers in found.items() if not numbers]:
        raise ConfigError(f"{', '.join(lacking)}: found no single token of this tokenizer")
    return [found[text] for text in texts]


def _may_write(token: str, texts: Sequence[str]) -> bool:
    # Vocabularies store ASCII literally: most of their tokens need no decoding.
    return any(not text.isascii() or text in token for text in texts)
