"""`agenttuning.chat_template_kwargs` holds for the rows, the evaluators, the saved tokenizer,
`build` and `check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.masks.chat import ChatRenderer

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ ('QUIET' if enable_thinking is false else 'LOUD') + m['content'] + eos_token }}"
    "{% else %}{{ m['role'] + ':' + m['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'QUIET' if enable_thinking is false else 'LOUD' }}{% endif %}"
)


def test_all_that_render_agree(
    on_cpu: Callable[..., Path], load: Callable[..., tuple[Any, Any]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from axolotl.train import train
    from datasets import load_from_disk

    from agenttuning_plugin.preflight.check import check
    from agenttuning_plugin.trainers.axolotl_build import build_recipe

    chats = tmp_path / "chats.jsonl"
    turns = (
        [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]
        for n in range(20)
    )
    chats.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns), "utf-8")
    section = {
        "eta": 0,
        "general": str(chats),
        "holdout": 3,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    recipe = on_cpu(
        "agentlm-7b",
        agenttuning=section,
        sample_packing=None,
        chat_template="jinja",
        chat_template_jinja=TEMPLATE,
        dataset_prepared_path=str(tmp_path / "prepared"),
        save_steps=None,
    )
    cfg, data = load(recipe)
    _, _, trainer = train(cfg=cfg, dataset_meta=data)
    saved = transformers.AutoTokenizer.from_pretrained(cfg.output_dir)
    for tokenizer in (trainer.processing_class, saved):
        assert ChatRenderer(tokenizer).prompt([Message("user", "q")]) == "user:q\nQUIET"
    row = saved.decode(data.train_dataset[0]["input_ids"])
    assert "QUIET" in row
    assert "LOUD" not in row
    build_recipe(tmp_path / "built", recipe)
    built = load_from_disk(str(tmp_path / "built"))
    assert list(built["input_ids"]) == list(data.train_dataset["input_ids"])
    assert [each.detail for each in check(recipe) if each.level == "error"] == []
