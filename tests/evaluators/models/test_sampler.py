"""Sampling from the likeliest tokens alone gives what sorting the whole vocabulary gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")

from evaluators.models.interface import Decoding  # noqa: E402
from evaluators.models.sampler import TokenChooser, _among_all, _among_likeliest  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # bfloat16 has many ties
@pytest.mark.parametrize("scale", [0.3, 4.0])
@pytest.mark.parametrize("top_p", [0.5, 0.9, 1.0])
def test_the_likeliest_tokens_decide_or_all_do(dtype: object, scale: float, top_p: float) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(64, 5000) * scale).to(dtype)
    probabilities = torch.softmax(logits.double(), dim=-1)
    drawn = torch.linspace(0, 1, 64, dtype=torch.float64).clamp(max=1 - 1e-12)
    quick = _among_likeliest(probabilities, drawn, top_p)
    whole = _among_all(probabilities, drawn, top_p)
    known = quick >= 0
    assert torch.equal(quick[known], whole[known])
    if scale == 4.0:
        assert known.float().mean() > 0.5  # Peaked, as language models are.


def test_a_row_that_the_likeliest_tokens_do_not_decide_is_drawn_from_all() -> None:
    """Uniform probabilities: every token is equally likely."""
    logits = torch.zeros(200, 5000)
    prompts = [[number] for number in range(200)]
    found = TokenChooser(Decoding(1, temperature=1.0), prompts).choose(logits, range(200))
    assert min(found) < 500
    assert max(found) > 4500
    assert len(set(found)) > 150
