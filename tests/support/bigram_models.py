"""Real models whose weights let every token be followed by a given one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from evaluators.models.target import EvalTarget

_HIDDEN = 512


def bigram_model(tokenizer: Any, follows: Mapping[str, str], otherwise: str) -> EvalTarget:
    """A Llama of one layer that adds nothing, so that each token decides the next.

    Args:
        tokenizer: Its tokenizer, of at most 512 tokens.
        follows: Token after each token.
        otherwise: Token after all others.
    """
    import torch
    import transformers

    number = tokenizer.convert_tokens_to_ids
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=8,
        tie_word_embeddings=False,
        max_position_embeddings=8192,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        # The layer adds nothing, and a token's vector is a place of its own.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), _HIDDEN))
        model.lm_head.weight.zero_()
        model.lm_head.weight[number(otherwise)] = 1.0
        for before, after in follows.items():
            model.lm_head.weight[number(otherwise), number(before)] = 0.0
            model.lm_head.weight[number(after), number(before)] = 1.0
    return EvalTarget(model, tokenizer)


def saying(tokenizer: Any, text: str, end: str) -> EvalTarget:
    """A model that answers every prompt with a text.

    Special tokens of the text stay tokens at their first place; what stands between these becomes a
    token each, which is added to the tokenizer.
    """
    special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    pieces: list[str] = []
    for piece in filter(None, re.split(f"({'|'.join(map(re.escape, special))})", text)):
        known = piece in special and piece not in pieces
        if pieces and not known and pieces[-1] not in special:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    pieces.append(end)
    assert len(set(pieces)) == len(pieces), pieces
    tokenizer.add_tokens([piece for piece in pieces if piece not in special])
    return bigram_model(tokenizer, dict(pairwise(pieces)), pieces[0])
