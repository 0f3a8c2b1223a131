"""`check` asks the server of `endpoint:` what training will need of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _module in ("torch", "transformers", "fastapi", "uvicorn", "peft"):
    pytest.importorskip(_module)

import transformers  # noqa: E402

from agenttuning_plugin.config.endpoint import EndpointConfig  # noqa: E402
from agenttuning_plugin.preflight.endpoint import check_endpoint  # noqa: E402
from tests.support.json_server import serving_json  # noqa: E402
from tests.support.served_model import serving_model  # noqa: E402


@pytest.fixture(scope="module")
def address(tiny_model_dir: Path) -> Iterator[str]:
    with serving_model(tiny_model_dir) as url:
        yield url


def found(cfg: dict[str, Any], url: str, tokenizer: Any = None) -> list[tuple[str, str]]:
    recipe = {"base_model": "/models/base", "adapter": "lora", "lora_r": 8, **cfg}
    findings = check_endpoint(recipe, EndpointConfig(base_url=url), tokenizer)
    return [(each.level, each.detail) for each in findings]


def test_a_server_that_bears_all_is_in_order(
    tiny_model_dir: Path, tmp_path: Path, address: str
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    cfg = {"output_dir": str(tmp_path / "not/there/yet")}
    told = found(cfg, address, tokenizer)
    assert [level for level, _ in told] == ["ok"] * 4, told
    assert not list(tmp_path.iterdir())  # The probe is gone.


def test_what_the_server_minds_is_found(tiny_model_dir: Path, tmp_path: Path, address: str) -> None:
    cfg = {"output_dir": str(tmp_path)}
    assert "LoRA rank 64 is greater" in found(cfg | {"lora_r": 64}, address)[-1][1]
    (level, told) = found(cfg | {"base_model": "other/model"}, address)[1]
    assert level == "warning"
    assert "found other/model, and the server serves base" in told
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|im_start|>::")
    (level, told) = found(cfg, address, tokenizer)[-1]
    assert level == "error"
    assert "chat template is not the recipe's" in told


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        ({"adapter": None}, "adapter: found None, expected lora"),
        ({"peft_use_dora": True}, "peft_use_dora: found DoRA, which vLLM does not load"),
        ({"lora_modules_to_save": ["embed_tokens"]}, "lora_modules_to_save: found full modules"),
    ],
)
def test_what_needs_no_asking_is_refused_without(cfg: dict[str, Any], expected: str) -> None:
    told = found(cfg, "http://127.0.0.1:9/v1")
    assert told[0][0] == "error"
    assert expected in told[0][1]
    assert "Connection refused" in told[-1][1]


def test_a_server_that_compares_nothing_is_a_warning(tiny_model_dir: Path) -> None:
    def answer(asked: dict[str, Any]) -> Any:
        return {"data": [{"id": "base"}], "choices": []}

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    with serving_json(answer) as url:
        told = found({"adapter": None}, f"{url}v1", tokenizer)
    assert [level for level, _ in told] == ["error", "ok", "ok", "warning", "warning"]
    assert "no /tokenize" in told[3][1]
    assert "no logit_bias" in told[4][1]


def test_the_templates_variables_are_sent(tiny_model_dir: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> Any:
        asked.append(question)
        return {"data": [{"id": "base"}], "choices": []}

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    variables = {"enable_thinking": False}
    with serving_json(answer) as url:
        settings = EndpointConfig(base_url=f"{url}v1")
        list(check_endpoint({"adapter": None}, settings, tokenizer, variables))
    prompts = [each for each in asked if "add_generation_prompt" in each]
    assert [each["chat_template_kwargs"] for each in prompts] == [variables]


DATED = (
    "{{ bos_token }}Today is {{ strftime_now('%d %b %Y') }}.\n"
    "{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


@pytest.mark.parametrize("servers", [DATED, DATED.replace("assistant:", "Well, what about: ")])
def test_a_server_writes_the_date_of_today(tiny_model_dir: Path, servers: str) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_model_dir, chat_template=servers)

    def answer(question: dict[str, Any]) -> Any:
        if "add_generation_prompt" not in question:
            return {"data": [{"id": "base"}], "choices": [{"finish_reason": "stop"}]}
        text = theirs.apply_chat_template(
            question["messages"], add_generation_prompt=True, tokenize=False
        )
        return {"tokens": theirs(text, add_special_tokens=False)["input_ids"]}

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir, chat_template=DATED)
    with serving_json(answer) as url:
        (level, told) = found({"adapter": None}, f"{url}v1", tokenizer)[-1]
    assert level == ("ok" if servers == DATED else "warning"), told
    assert servers == DATED or "differ from the recipe's by more than the date" in told
