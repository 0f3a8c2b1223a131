"""From an oracle's tool calls to a trained model that calls the tools itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")
pytest.importorskip("transformers.utils.chat_parsing")

from dataset_builders.encoding.encoder import Encoder  # noqa: E402
from dataset_builders.encoding.token_rows import TokenReport  # noqa: E402
from dataset_builders.formats.calls_as_text import calls_as_text  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.agent_task import AgentTaskEvaluator  # noqa: E402
from evaluators.tasks.replay import ReplayEvaluator, oracle_trajectories  # noqa: E402
from tests.support.account import ACCOUNT, account  # noqa: E402, F401
from tests.support.hermes_template import HERMES, MARKS  # noqa: E402


def learn(model: Any, row: Any) -> None:
    """Train until the likeliest token is the right one everywhere."""
    ids, labels = (torch.tensor(each.tolist()) for each in (row.input_ids, row.labels))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(300):
        logits = model(ids[None]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="none")
        if loss.max() < 0.5:
            return
        loss[labels[1:] >= 0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    pytest.fail(f"worst loss of a token: {loss.max()}")


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("native", [True, False])
def test_a_model_trained_on_calls_calls_tools(
    tiny_model_dir: Path, make_tokenizer: Callable[..., Any], native: bool
) -> None:
    tokenizer = make_tokenizer(HERMES if native else None)
    tokenizer.add_tokens(MARKS, special_tokens=native)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.resize_token_embeddings(len(tokenizer))
    (trajectory,) = oracle_trajectories(ACCOUNT, 1)
    shown = trajectory if native else calls_as_text(trajectory)
    (row,) = Encoder(tokenizer, max_length=4096).encode([shown], TokenReport())
    subject = EvalTarget(model, tokenizer)
    evaluator = AgentTaskEvaluator("account", num_tasks=1)
    assert evaluator.items() == (trajectory.id,)
    assert run_evaluator(evaluator, subject).metrics["success"].value == 0
    learn(model, row)
    evaluation = run_evaluator(evaluator, subject)
    assert evaluation.metrics["success"].value == 1
    assert evaluation.metrics["valid_format"].value == 1
    replayed = run_evaluator(ReplayEvaluator([trajectory]), subject).metrics
    assert (replayed["action_match"].value, replayed["parsable"].value) == (1, 1)
