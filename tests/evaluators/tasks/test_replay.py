"""Replay: what a model would have done in the places of expert trajectories."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.environments import HELD_IN, load_environment
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from dataset_builders.encoding.token_rows import TokenReport  # noqa: E402
from dataset_builders.encoding.tokens import Encoder, encode_dataset  # noqa: E402
from dataset_builders.masks.chat import ChatRenderer  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.models.eval_mode import evaluation_mode  # noqa: E402
from evaluators.models.token_model import TokenScores  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.replay import (  # noqa: E402
    ReplayEvaluator,
    _reader_of,
    oracle_trajectories,
)
from evaluators.tasks.replayed_turns import TurnReader, trained_ranges  # noqa: E402
from evaluators.tasks.turns import action_start  # noqa: E402


@pytest.fixture(scope="module")
def trajectories() -> list[Conversation]:
    return oracle_trajectories(load_environment("database"), 6, split="dev")


def test_nothing_that_is_trained_on_is_replayed() -> None:
    with pytest.raises(ConfigError, match="split: found 'train'"):
        oracle_trajectories(load_environment("database"), 6, split="train")


@pytest.fixture
def subject(tiny_model_dir: Path) -> EvalTarget:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    return EvalTarget(model, transformers.AutoTokenizer.from_pretrained(tiny_model_dir))


def test_figures_are_those_of_the_models_own_logits(
    subject: EvalTarget, trajectories: list[Conversation]
) -> None:
    """Worked out without the evaluator's batches and ranges, for one trajectory."""
    result = run_evaluator(ReplayEvaluator(trajectories[:1]), subject)
    tokenizer = subject.tokenizer
    rendered = ChatRenderer(tokenizer).render(trajectories[0])
    logprobs, matches, turns = 0.0, 0, []
    spoken: list[float] = []
    for span in rendered.spans:
        turn = rendered.text[span.start : span.end]
        begin = span.start + (action_start(turn) or 0)
        head = tokenizer(rendered.text[:begin], add_special_tokens=False)["input_ids"]
        whole = tokenizer(rendered.text[: span.end], add_special_tokens=False)["input_ids"]
        assert whole[: len(head)] == head
        with torch.no_grad():
            logits = subject.model(torch.tensor([whole])).logits[0]
        values = torch.log_softmax(logits, -1)
        picked = [values[i - 1, whole[i]].item() for i in range(len(head), len(whole))]
        logprobs += sum(picked)
        start = len(tokenizer(rendered.text[: span.start], add_special_tokens=False)["input_ids"])
        spoken += [values[i - 1, whole[i]].item() for i in range(start, len(whole))]
        turns.append(len(picked))
        matches += all(
            int(logits[i - 1].argmax()) == whole[i] for i in range(len(head), len(whole))
        )
    (record,) = result.records
    assert record["scores"]["action_logprob"] == pytest.approx(logprobs / sum(turns), rel=1e-4)
    assert record["scores"]["action_match"] == matches / len(turns)
    assert record["rounds"] == len(turns) > 1
    assert record["scores"]["turn_logprob"] == pytest.approx(sum(spoken) / len(spoken), rel=3e-6)


def test_a_model_that_knows_the_trajectory_matches_it(
    subject: EvalTarget, trajectories: list[Conversation]
) -> None:
    """Trained on two trajectories until it has them by heart, and untrained on others."""
    known, unknown = trajectories[:2], trajectories[4:]
    rows = encode_dataset(known, Encoder(subject.tokenizer, max_length=4096)).dataset
    batches = [{key: torch.tensor([row[key]]) for key in ("input_ids", "labels")} for row in rows]
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=2e-3)
    before = run_evaluator(ReplayEvaluator(known), subject)
    # How many steps it takes differs with the processor.
    worst = math.inf
    for _ in range(400):
        losses = []
        for batch in batches:
            loss = subject.model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        if (worst := max(losses)) < 0.01:
            break
    assert worst < 0.01
    after = run_evaluator(ReplayEvaluator(known), subject).metrics
    assert before.metrics["action_match"].value == 0
    assert after["action_match"].value == 1
    assert after["parsable"].value == 1
    assert after["first_divergence"].value == 1
    assert after["action_logprob"].value > -0.1
    other = run_evaluator(ReplayEvaluator(unknown), subject).metrics
    assert other["action_logprob"].value < after["action_logprob"].value


def test_an_item_that_is_too_long_is_an_error_of_its_own(
    subject: EvalTarget, trajectories: list[Conversation]
) -> None:
    lengths = {
        c.id: len(subject.tokenizer(ChatRenderer(subject.tokenizer).render(c).text)["input_ids"])
        for c in trajectories
    }
    limit = sorted(lengths.values())[2]
    result = run_evaluator(ReplayEvaluator(trajectories, max_length=limit), subject)
    assert result.num_errors == sum(length > limit for length in lengths.values()) > 0
    assert all("long" in r["error"] for r in result.records if r["error"])


def test_a_limit_takes_the_same_ones_and_ids_that_repeat_are_numbered() -> None:
    talks = [
        Conversation.create([Message("user", "q"), Message("assistant", "a", True)], id=name)
        for name in ("x", "x", "y")
    ]
    assert set(ReplayEvaluator(talks).items()) == {f"trajectory-{n:05}" for n in range(3)}
    assert ReplayEvaluator(talks, limit=2).items() == ReplayEvaluator(talks).items()[:2]
    with pytest.raises(ConfigError, match="no trajectory with a trained turn"):
        ReplayEvaluator([Conversation.create([Message("user", "q")])])


def test_a_turn_begins_its_action_at_its_label(smollm2_tokenizer: Any) -> None:
    reader = TurnReader(smollm2_tokenizer)
    for thought in ("Ünïcode thought 🙂 of it.", "Short.", ""):
        text = f"{thought}\nAction: Operation\n```sql\nSELECT 1\n```"
        ids = smollm2_tokenizer(text)["input_ids"]
        number = reader._action(ids)
        rest = smollm2_tokenizer.decode(ids[number:])
        assert rest.lstrip("\n").startswith("Action: Operation")
    assert reader._action(smollm2_tokenizer("no action")["input_ids"]) == 0


_TURNS = {
    "alfworld": "THOUGHT: The desk.\n ACTION: go to desk 1",
    "database": "Look.\nAction: Operation\n```sql\nSELECT 1\n```",
    "knowledge_graph": "Thought: Its edges.\nAction: get_relations(Ada)",
    "mind2web": "Thought: The button.\nAnswer: B.\nAction: CLICK",
    "os": "Think: Count.\n\nAct: bash\n\n```bash\nls | wc -l\n```",
    "webshop": "Thought:\nA brush.\n\nAction:\nsearch[hair brush]",
}


@pytest.mark.parametrize("name", HELD_IN)
def test_the_format_is_told_before_any_task_has_begun(name: str) -> None:
    """Of each environment and AgentInstruct's name of it; some parsers take any turn."""
    environment = load_environment(name)
    for task in (name, environment.dialogue.agentinstruct_task):
        has_action = _reader_of(task)
        assert has_action is not None
        assert has_action(_TURNS[name])
        assert not any(map(has_action, ("", "I will have a look.", "THE END", "Act:\n")))
    assert _reader_of("chess") is None


def test_the_experts_own_turns_have_an_action(shared: Path) -> None:
    """AgentInstruct's, as they come; so what is not parsable is the model's doing."""
    for file in sorted((shared / "data/agentinstruct").glob("*.jsonl")):
        for row in load_source(resolve_source(str(file))).conversations[:50]:
            has_action = _reader_of(row.task)
            assert has_action is not None
            turns = [message.content for message in row.messages if message.trained]
            assert turns
            assert all(map(has_action, turns)), row.id


def test_what_is_parsed_are_the_tokens_in_the_places_of_the_experts(
    subject: EvalTarget, trajectories: list[Conversation]
) -> None:
    """Of a model that would have written just what the expert did."""
    row = next(Encoder(subject.tokenizer, max_length=4096).encode(trajectories[:1], TokenReport()))
    ids = row.input_ids[1:]
    heard: list[str] = []
    turns = TurnReader(subject.tokenizer).turns(
        row, TokenScores(np.zeros(len(ids), np.float32), ids), lambda text: not heard.append(text)
    )
    assert all(turn.agrees and turn.parsable for turn in turns)
    said = [message.content for message in trajectories[0].messages if message.trained]
    assert [text.strip() for text in heard] == [text.strip() for text in said]


def test_what_the_oracle_does_not_solve_is_no_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(
        load_environment("database"), ["database-dev-0000", "database-dev-0001"], OraclePolicy()
    )
    half = [played[0], replace(played[1], success=False)]
    monkeypatch.setattr("evaluators.tasks.replay.play", lambda *given: half)
    found = oracle_trajectories(load_environment("database"), 2, split="dev")
    assert [conversation.id for conversation in found] == [played[0].task_id]


def test_runs_of_trained_tokens() -> None:
    labels = np.array([-100, 1, 2, -100, -100, 3, -100, 4], dtype=np.int32)
    assert trained_ranges(labels) == [(1, 3), (5, 6), (7, 8)]
    assert trained_ranges(np.array([-100], dtype=np.int32)) == []


def test_ranks_read_a_share_each(subject: EvalTarget, trajectories: list[Conversation]) -> None:
    with evaluation_mode(subject):
        evaluator = ReplayEvaluator(trajectories)
        found: list[Any] = []
        evaluator.measure(subject, evaluator.items()[1::2], found.append)
    assert [record["item"] for record in found] == list(evaluator.items()[1::2])


def test_several_tasks_have_figures_of_their_own(
    subject: EvalTarget, trajectories: list[Conversation]
) -> None:
    """The mean over a task's trajectories is its figure; one task alone repeats nothing."""
    mixed = [
        replace(each, task="os" if number < 2 else "database")
        for number, each in enumerate(trajectories)
    ]
    result = run_evaluator(ReplayEvaluator(mixed, name="panel"), subject)
    apart = run_evaluator(ReplayEvaluator(mixed[:2]), subject)
    assert result.evaluator == "panel"
    assert set(apart.metrics) < set(result.metrics)
    for name in ("action_match", "turn_logprob"):
        assert result.metrics[f"{name}_os"].n == 2
        assert result.metrics[f"{name}_database"].n == len(trajectories) - 2
        assert result.metrics[f"{name}_os"].value == pytest.approx(apart.metrics[name].value)
        assert f"{name}_os" not in apart.metrics
