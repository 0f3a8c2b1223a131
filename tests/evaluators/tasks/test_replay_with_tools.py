"""Replay of trajectories whose actions are tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
pytest.importorskip("transformers.utils.chat_parsing")

from dataset_builders.conversation import Conversation, Message  # noqa: E402
from dataset_builders.encoding.encoder import Encoder  # noqa: E402
from dataset_builders.encoding.token_rows import TokenReport  # noqa: E402
from dataset_builders.masks.chat import ChatRenderer  # noqa: E402
from evaluators.models.local_calls import LocalCalls  # noqa: E402
from evaluators.models.logprobs import TokenScores  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.replay import ReplayEvaluator  # noqa: E402
from evaluators.tasks.replayed_turns import TurnReader  # noqa: E402
from tests.support.bigram_models import bigram_model  # noqa: E402
from tests.support.call_shapes import SHAPES, TOOLS, conversation  # noqa: E402
from tests.support.hermes_template import HERMES, MARKS  # noqa: E402


@pytest.fixture
def hermes(make_tokenizer: Callable[..., Any]) -> Any:
    tokenizer = make_tokenizer(HERMES)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    return tokenizer


@pytest.fixture
def trajectory() -> Conversation:
    """A turn with words and a call, and an answer."""
    talk = conversation(SHAPES["words and a call"])
    *others, last = talk.messages
    return replace(talk, id="one", messages=(*others, replace(last, trained=True)))


def test_the_action_of_a_turn_is_its_call(hermes: Any, trajectory: Conversation) -> None:
    """Figures worked out from the model's own logits."""
    subject = bigram_model(hermes, {}, "a")
    (record,) = run_evaluator(ReplayEvaluator([trajectory]), subject).records
    rendered = ChatRenderer(hermes).render(trajectory)
    first, last = rendered.spans
    starts = (rendered.text.index("<tool_call>", first.start), last.start)
    logprobs, tokens = 0.0, 0
    for begin, end in zip(starts, (first.end, last.end), strict=True):
        head = hermes(rendered.text[:begin], add_special_tokens=False)["input_ids"]
        whole = hermes(rendered.text[:end], add_special_tokens=False)["input_ids"]
        assert whole[: len(head)] == head
        with torch.no_grad():
            values = subject.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        logprobs += sum(values[i - 1, whole[i]].item() for i in range(len(head), len(whole)))
        tokens += len(whole) - len(head)
    assert record["scores"]["action_logprob"] == pytest.approx(logprobs / tokens, rel=1e-4)
    assert (record["rounds"], record["scores"]["action_match"]) == (2, 0)
    # The call is not written; the answer is a text, as the expert's.
    assert record["scores"]["parsable"] == 0.5


def test_what_the_model_would_write_is_read(hermes: Any, trajectory: Conversation) -> None:
    (row,) = Encoder(hermes, max_length=4096).encode([trajectory], TokenReport())
    calls = LocalCalls(hermes, (hermes.eos_token,))
    reader = TurnReader(hermes)
    likeliest = row.input_ids[1:].copy()

    def turns() -> list[tuple[bool, bool | None]]:
        score = TokenScores(np.zeros(len(likeliest), np.float32), likeliest)
        found = reader.turns_with_tools(row, score, calls.spelling, TOOLS)
        return [(turn.agrees, turn.parsable) for turn in found]

    assert turns() == [(True, True), (True, True)]
    place = likeliest.tolist().index(hermes.convert_tokens_to_ids("</tool_call>"))
    likeliest[place - 2] = hermes.convert_tokens_to_ids("a")  # Within the call's JSON.
    assert turns() == [(False, False), (True, True)]
    likeliest[:] = row.input_ids[1:]
    words = hermes("Let", add_special_tokens=False)["input_ids"]
    before = row.input_ids.tolist().index(words[0], int(np.argmax(row.labels >= 0)))
    likeliest[before - 1] = hermes.convert_tokens_to_ids("a")  # Words before it are no action.
    assert turns() == [(True, True), (True, True)]


def test_a_template_without_tools_replays_them_as_text(
    make_tokenizer: Callable[..., Any], trajectory: Conversation
) -> None:
    tokenizer = make_tokenizer()
    subject = bigram_model(tokenizer, {}, "a")
    (record,) = run_evaluator(ReplayEvaluator([trajectory]), subject).records
    assert (record["error"], record["rounds"]) == ("", 2)
    assert record["scores"]["parsable"] == 0.5


def test_trajectories_with_and_without_tools(hermes: Any, trajectory: Conversation) -> None:
    plain = Conversation.create(
        [Message("user", "q"), Message("assistant", "Action: Answer", True)], id="two", task="db"
    )
    evaluator = ReplayEvaluator([trajectory, plain])
    records = {
        r["item"]: r for r in run_evaluator(evaluator, bigram_model(hermes, {}, "a")).records
    }
    assert {item: record["error"] for item, record in records.items()} == {"one": "", "two": ""}
    other = replace(trajectory, messages=conversation(SHAPES["nested"]).messages)
    assert evaluator.about() != ReplayEvaluator([other, plain]).about()
