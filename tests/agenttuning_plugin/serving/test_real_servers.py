"""Real servers of a trained model give the greedy answers of the evaluator in this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

for _module in ("torch", "transformers", "openai", "peft", "fastapi", "uvicorn"):
    pytest.importorskip(_module)

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from agenttuning_plugin.evaluation.model_loading import load_subject  # noqa: E402
from agenttuning_plugin.evaluation.server import RouteError, Server  # noqa: E402
from agenttuning_plugin.reports.model_record import write_model_record  # noqa: E402
from agenttuning_plugin.training_data.model_record import describe_model  # noqa: E402
from benchmarks import serving  # noqa: E402
from dataset_builders.encoding.encoder import Encoder  # noqa: E402
from dataset_builders.encoding.token_rows import TokenReport  # noqa: E402
from dataset_builders.environments import load_environment  # noqa: E402
from dataset_builders.formats.spelled_calls import declared_spellings, vllm_parser  # noqa: E402
from evaluators.tasks.replay import oracle_trajectories  # noqa: E402
from tests.support.vllm_server import NEEDS_VLLM, small_model, vllm_python  # noqa: E402

PYTHON = vllm_python()

pytestmark = [
    *NEEDS_VLLM,
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Skipping publisher trust check"),
]

EPISODES, TOKENS = 32, 48


def train(model: Any, row: Any, steps: int) -> None:
    """Train on one row."""
    ids, labels = (torch.tensor(each.tolist()) for each in (row.input_ids, row.labels))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=3e-3)
    for _ in range(steps):
        model(input_ids=ids[None], labels=labels[None]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def trained(make_tokenizer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run: base and adapter are trained on the oracle's turns of a task each."""
    assert PYTHON is not None
    base, run = (tmp_path_factory.mktemp(name) for name in ("base", "trained"))
    tokenizer = make_tokenizer()
    model = small_model(tokenizer)
    oracle = oracle_trajectories(load_environment("database"), 2)
    first, second = Encoder(tokenizer, max_length=4096).encode(oracle, TokenReport())
    train(model, first, 150)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = peft.LoraConfig(r=24, lora_alpha=48, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    record = describe_model(adapted)
    train(adapted, second, 50)
    adapted.save_pretrained(run)
    tokenizer.save_pretrained(run)
    # A second end token, which neither the tokenizer nor the base's generation config names.
    write_model_record(run, {**record, "end_of_turn": ["</s>"]})
    return run


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PYTHON is not None
    monkeypatch.setenv("AGENTTUNING_VLLM", str(PYTHON.parents[1]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", "")


def test_every_server_answers_as_the_adapter_in_this_process(trained: Path) -> None:
    ways = dict(serving.measure(trained, EPISODES, TOKENS))
    assert len(ways) == 2 + len(serving.WAYS)
    for name, found in ways.items():
        assert found["episodes"] == EPISODES
        # A difference has to be a tie: sums in another order differ by about 1e-5 in float32.
        assert all(abs(each["margin"]) < 1e-3 for each in found["differences"]), (name, found)
        assert found["identical"] >= EPISODES - 2, (name, found)


def test_a_difference_is_explained_by_its_first_token(trained: Path) -> None:
    subject = load_subject(str(trained))
    asked = [{"role": "user", "content": "What is 2 + 3?"}]
    found = serving.explain(subject, asked, "Act", "Action")
    assert (found["ours"], found["token"]) == ("<|im_end|>", len(subject.tokenizer.encode("Act")))
    other = serving.explain(subject, asked, "Action", "Act")
    assert other["margin"] == pytest.approx(-found["margin"], abs=1e-5)


def test_serve_starts_vllm_compares_it_and_ends_it_on_ctrl_c(trained: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "agenttuning_plugin", "serve", str(trained)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--name", "tuned"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "COLUMNS": "500"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    with process.stdout as output:
        lines = []
        for line in output:
            lines.append(line.strip())
            if line.startswith("Ctrl-C"):
                break
        server = Server(f"http://127.0.0.1:{port}/v1")
        # Both end tokens were forced there, and ended the turn.
        assert "prompts and end tokens are those of training" in lines
        assert f"agenttuning chat {server.base_url} --model-name tuned" in lines
        assert "tuned" in [row["id"] for row in server.models()]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    with pytest.raises(RouteError):
        server.models()


def test_the_parser_of_each_spelling_is_one_of_vllms() -> None:
    assert PYTHON is not None
    code = "from vllm.tool_parsers import ToolParserManager as m; print(m.list_registered())"
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True)
    for spelling in declared_spellings():
        assert f"'{vllm_parser(spelling.name)}'" in done.stdout
    assert f"'{vllm_parser('tokenizer')}'" in done.stdout
