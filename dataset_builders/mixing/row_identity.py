"""What encoded rows depend on besides their sources: the name of a cache entry is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dataset_builders.masks.chat import ChatRenderer
from dataset_builders.mixing.preparation import Encoding

ENCODER_VERSION = 2
"""Raised when the same conversations come to be encoded into other rows."""


@dataclass(frozen=True, slots=True)
class RowIdentity:
    """Tokenizer and settings that rows are encoded with.

    Attributes:
        tokenizer: The tokenizer, its chat template in place.
        encoding: Settings of the rows.
    """

    tokenizer: Any
    encoding: Encoding

    @property
    def parts(self) -> dict[str, Any]:
        """JSON-ready values that differ if the rows may differ.

        Raises:
            ConfigError: The tokenizer cannot be used, see `ChatRenderer`.
        """
        tokenizer = self.tokenizer
        parts = {
            "version": ENCODER_VERSION,
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "template": tokenizer.chat_template,
            "special": [tokenizer.bos_token, tokenizer.eos_token],
            "encoding": self.encoding.to_dict(),
        }
        if ChatRenderer(tokenizer, self.encoding.end_of_turn).rewrites_history:
            parts["rows"] = "auto"  # Entries of before it was the default hold other rows.
        return parts
