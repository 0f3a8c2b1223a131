"""Tool calls of a real vLLM: read by its parser, or refused in one line without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for _module in ("torch", "transformers", "openai"):
    pytest.importorskip(_module)

from dataset_builders.collection.collector import run as collect  # noqa: E402
from dataset_builders.collection.engine import RolloutConfig  # noqa: E402
from dataset_builders.collection.settings import CollectConfig  # noqa: E402
from dataset_builders.encoding.encoder import Encoder  # noqa: E402
from dataset_builders.encoding.token_rows import TokenReport  # noqa: E402
from dataset_builders.endpoints.endpoint import Endpoint as Place  # noqa: E402
from dataset_builders.endpoints.requests import Sampling  # noqa: E402
from dataset_builders.errors import EndpointError  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.agent_task import AgentTaskEvaluator  # noqa: E402
from evaluators.tasks.replay import oracle_trajectories  # noqa: E402
from tests.evaluators.tasks.test_local_tools import learn  # noqa: E402
from tests.support.account import ACCOUNT, account  # noqa: E402, F401
from tests.support.hermes_template import HERMES, MARKS  # noqa: E402
from tests.support.vllm_server import NEEDS_VLLM, serving_vllm, small_model, vllm_python  # noqa: E402

PYTHON = vllm_python()

pytestmark = [
    *NEEDS_VLLM,
    pytest.mark.usefixtures("account"),
]

PARSER = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def trained(folder: Path, tokenizer: Any) -> EvalTarget:
    """Save a model that has learned the oracle's turns of the first task."""
    tokenizer.add_tokens(MARKS, special_tokens=False)
    model = small_model(tokenizer)
    (trajectory,) = oracle_trajectories(ACCOUNT, 1)
    (row,) = Encoder(tokenizer, max_length=4096).encode([trajectory], TokenReport())
    learn(model, row)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return EvalTarget(model, tokenizer)


def test_a_served_model_calls_tools(tmp_path: Path, make_tokenizer: Callable[..., Any]) -> None:
    assert PYTHON is not None
    subject = trained(tmp_path / "model", make_tokenizer(HERMES))
    here = run_evaluator(AgentTaskEvaluator("account", num_tasks=1), subject)
    task = here.records[0]["item"].replace("test", "train")
    assert here.metrics["success"].value == 1

    def config(url: str, out: str) -> CollectConfig:
        endpoint = Place("base", url, tries=3, timeout=120)
        play = RolloutConfig(ACCOUNT, endpoint, Sampling(temperature=0, max_tokens=64))
        return CollectConfig(play, tmp_path / out, tasks=[task])

    with serving_vllm(PYTHON, tmp_path / "model", tmp_path / "log.txt", *PARSER) as url:
        report = collect(config(url, "parsed"))
    assert (report["kept"], report["tool_calls"]) == (1, {"calls": 2})
    (line,) = (tmp_path / "parsed/messages/account.jsonl").read_text().splitlines()
    turns = [m for m in json.loads(line)["messages"] if m["role"] == "assistant"]
    assert [turn["tool_calls"][0]["function"]["name"] for turn in turns] == ["pay", "close"]
    # vLLM refuses tools without the two flags.
    with serving_vllm(PYTHON, tmp_path / "model", tmp_path / "log2.txt") as url:
        with pytest.raises(EndpointError, match=r"the endpoint refuses tools: HTTP 400") as refused:
            collect(config(url, "refused"))
        assert "--enable-auto-tool-choice" in str(refused.value)
