"""The probability of an answer's letter is that of the tokens which write it in their place."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest

for _module in ("torch", "transformers"):
    pytest.importorskip(_module)

import torch  # noqa: E402
import transformers  # noqa: E402

from dataset_builders.conversation import Message  # noqa: E402
from dataset_builders.errors import ConfigError  # noqa: E402
from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.letter_tokens import tokens_writing  # noqa: E402
from evaluators.models.target import Decoding, EvalTarget  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from tests.evaluators.tasks.general.test_mmlu import archive, made  # noqa: E402

LETTERS = ["A", "B", "C", "D"]
ASKED = [Message("user", "Which letter?")]
TURN = "{% for m in messages %}{{ m['role'] + SEP + m['content'] + eos_token }}{% endfor %}"
TURN += "{% if add_generation_prompt %}{{ 'assistant' + SEP }}{% endif %}"
TEMPLATES = {
    "line break": TURN.replace("SEP", "'\n'"),
    "zephyr": TURN.replace("m['role']", "'<|' + m['role'] + '|>'")
    .replace("'assistant'", "'<|assistant|>'")
    .replace("SEP", "'\n'"),
    "colon": TURN.replace("SEP", "':'"),
    "bracket": TURN.replace("SEP", "' [/INST]'"),
}


def ending_in(tokenizer: Any, template: str) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = TEMPLATES[template]
    return changed


@pytest.fixture(params=["smollm2_tokenizer", "llama2_tokenizer"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("blank", ["", " "])
def test_the_token_that_follows_in_its_context_is_counted(
    template: str, blank: str, tokenizer: Any
) -> None:
    tokenizer = ending_in(tokenizer, template)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which letter?"}], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    for letter, ids in zip(LETTERS, tokens_writing(tokenizer, LETTERS), strict=True):
        whole = tokenizer(text + blank + letter, add_special_tokens=False)["input_ids"]
        assert whole[: len(prompt)] == prompt
        assert whole[len(prompt)] in ids


def test_no_token_writes_two_letters_and_a_text_without_one_is_refused(tokenizer: Any) -> None:
    found = tokens_writing(tokenizer, LETTERS)
    assert all(len(ids) >= 2 for ids in found)  # with and without a blank
    assert len({number for ids in found for number in ids}) == sum(map(len, found))
    for number in found[0]:
        assert tokenizer.decode([found[1][0], number]).strip().endswith("A")
    with pytest.raises(ConfigError, match="Zwiebelkuchen"):
        tokens_writing(tokenizer, ["A", "Zwiebelkuchen"])


def constant_model(tokenizer: Any, chances: dict[int, float]) -> Any:
    """A Llama whose next token has the same probabilities after every prompt."""
    size = len(tokenizer)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=4096,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    rest = (1 - sum(chances.values())) / (size - len(chances))
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.norm.weight[0] = 1.0  # After it, the first dimension is sqrt(8).
        model.lm_head.weight[:, 0] = math.log(rest) / math.sqrt(8)
        for token, chance in chances.items():
            model.lm_head.weight[token, 0] = math.log(chance) / math.sqrt(8)
    return model.eval()


def pieces(tokenizer: Any, *names: str) -> list[int]:
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    assert None not in ids
    assert tokenizer.unk_token_id not in ids or tokenizer.unk_token_id is None
    return ids


def test_after_a_line_break_sentencepiece_writes_a_letter_without_a_blank(
    llama2_tokenizer: Any,
) -> None:
    tokenizer = ending_in(llama2_tokenizer, "line break")
    bare, blank = pieces(tokenizer, "B", "▁A")
    subject = EvalTarget(constant_model(tokenizer, {bare: 0.6, blank: 0.3}), tokenizer)
    model = subject.language_model()
    with evaluation_mode(subject):
        [written] = model.chat([ASKED], Decoding(1))
        [values] = model.next_token_logprobs([ASKED], LETTERS)
    assert written == "B"
    assert values is not None
    assert [math.exp(v) for v in values] == pytest.approx([0.3, 0.6, 0, 0], abs=1e-2)


def test_both_spellings_of_a_letter_are_summed(llama2_tokenizer: Any) -> None:
    tokenizer = ending_in(llama2_tokenizer, "colon")
    one, other, rival = pieces(tokenizer, "C", "▁C", "▁A")
    subject = EvalTarget(constant_model(tokenizer, {one: 0.25, other: 0.25, rival: 0.4}), tokenizer)
    with evaluation_mode(subject):
        [values] = subject.language_model().next_token_logprobs([ASKED], LETTERS)
    assert values is not None
    assert [math.exp(v) for v in values] == pytest.approx([0.4, 0, 0.5, 0], abs=1e-2)
    assert values.prompt_tokens > 3


@pytest.mark.parametrize(("mass", "warned"), [(0.9, False), (0.01, True)])
def test_letters_of_little_probability_are_warned_of(
    mass: float, warned: bool, llama2_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = ending_in(llama2_tokenizer, "line break")
    letter, thought = pieces(tokenizer, "A", "▁think")
    subject = EvalTarget(constant_model(tokenizer, {letter: mass, thought: 0.95 - mass}), tokenizer)
    archive(tmp_path)
    result = run_evaluator(made(tmp_path, shots=0), subject, limit=4)
    assert result.num_errors == 0
    assert ("of the next token's probability" in result.warning) is warned
    assert all(record["letter_mass"] == pytest.approx(mass, abs=0.05) for record in result.records)


@pytest.mark.parametrize(("limit", "said"), [(1, "cut at the token limit"), (0, "")])
def test_an_answer_says_whether_it_was_cut(limit: int, said: str, llama2_tokenizer: Any) -> None:
    tokenizer = ending_in(llama2_tokenizer, "line break")
    [token] = pieces(tokenizer, "▁word")
    eos = tokenizer.eos_token_id
    subject = EvalTarget(constant_model(tokenizer, {token if limit else eos: 0.9}), tokenizer)
    with evaluation_mode(subject):
        answers = subject.language_model().chat([ASKED], Decoding(3))
    from evaluators.models.answer_facts import answer_facts, answer_warning

    facts = answer_facts(answers)
    assert facts == {"turns": 1, "empty": 1 - limit, "cut": limit}
    assert (said or "empty") in answer_warning([facts])
