"""Self-replay against a server and a model in this process: histories, filters, kills, limits."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints import endpoint as endpoints
from dataset_builders.endpoints.answer import Answer
from dataset_builders.endpoints.pricing import Price, PriceTable
from dataset_builders.endpoints.reply import CONTEXT_FULL, Reply
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.instructions.run_io import Writer
from dataset_builders.self_replay.filters import drop_reason, repeats
from dataset_builders.self_replay.run import (
    LocalAnswers,
    count_prompts,
    sampling_of,
    self_replay,
)
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from dataset_builders.sources.made import SelfReplay
from tests.support.endpoint import Endpoint, Fault, Messages, serving

LOOP = "I like the sea and the sand at night. " * 6
IDENTITY = {"endpoint": "m"}

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="pip install 'agenttuning-plugin[collect]'"
)


def turns(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    recorded = (*texts, "recorded") if len(texts) % 2 else texts  # A source has trained turns.
    rows = [{"role": roles[n % 2], "content": text} for n, text in enumerate(recorded)]
    return {"id": texts[0], "messages": rows}


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[..., SelfReplay]:
    """Writes conversations, and returns settings that answer them."""

    def write(*talks: dict[str, Any], **settings: Any) -> SelfReplay:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(talk) + "\n" for talk in talks), "utf-8")
        return SelfReplay(str(path), **settings)

    return write


def writer(settings: SelfReplay, server: Endpoint, **more: Any) -> Writer:
    endpoint = endpoints.Endpoint("m", server.url, tries=2, back_off=0.01)
    return Writer(endpoint, sampling_of(settings), **more)


def rows(out: Path) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Each conversation's id, and its turns with whether they are trained."""
    talks = load_source(resolve_source(str(out))).conversations
    return [(c.id, [(m.content, m.trained) for m in c.messages]) for c in talks]


def shown(messages: Messages) -> str:
    return f"[{len(messages)}: {messages[-1]['content']}]"


@needs_client
def test_the_model_continues_its_own_answers(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    settings = prompts(turns("a", "recorded", "b", "recorded"), turns("c"), temperature=0)
    with serving(Endpoint(shown)) as server:
        report = self_replay(settings, tmp_path / "out", writer(settings, server), IDENTITY)
        sent = [[m["content"] for m in request["messages"]] for request in server.requests]
    assert ["a", "[1: a]", "b"] in sent
    assert not any("recorded" in text for request in sent for text in request)
    assert rows(tmp_path / "out") == [
        ("a", [("a", False), ("[1: a]", True), ("b", False), ("[3: b]", True)]),
        ("c", [("c", False), ("[1: c]", True)]),
    ]
    assert report["answers"] == {"kept": 3}
    assert report["spent"]["requests"] == 3
    assert server.requests[0]["temperature"] == 0
    assert "seed" not in server.requests[0]


@needs_client
def test_each_turn_after_the_recorded_history_is_a_conversation(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    settings = prompts(turns("a", "recorded", "b", "x"), history="recorded", temperature=0.5)
    with serving(Endpoint(shown)) as server:
        self_replay(settings, tmp_path / "out", writer(settings, server), IDENTITY)
    assert rows(tmp_path / "out") == [
        ("a#0", [("a", False), ("[1: a]", True)]),
        ("a#1", [("a", False), ("recorded", False), ("b", False), ("[3: b]", True)]),
    ]
    assert {request["seed"] for request in server.requests} == {0}


@needs_client
def test_a_conversation_ends_before_its_first_dropped_answer(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    said = {"a": "Fine.", "b": "I cannot help with that.", "c": "No.", "d": LOOP, "e": " "}
    tool = turns("x", "recorded")
    tool["messages"].insert(1, {"role": "tool", "content": "y"})
    greeting = {"messages": [{"role": "assistant", "content": "t"}]}
    unreadable = {"messages": [{"role": "user", "content": "no answer"}]}
    talks = [turns("a", "x", "b", "x", "c"), turns("d"), turns("e"), tool, greeting, unreadable]
    settings = prompts(*talks)
    assert count_prompts(settings) == (3, 5)
    with serving(Endpoint(lambda messages: said[messages[-1]["content"]])) as server:
        report = self_replay(settings, tmp_path / "out", writer(settings, server), IDENTITY)
    assert rows(tmp_path / "out") == [("a", [("a", False), ("Fine.", True)])]
    assert report["answers"] == {
        "kept": 1, "refusal": 1, "repetition": 1, "empty": 1, "after_dropped_answer": 1,
    }  # fmt: skip
    assert report["conversations"] == {
        "kept": 1, "repetition": 1, "empty": 1, "tools": 1, "no_user_turn": 1,
    }  # fmt: skip
    assert report["unread"] == {"no_trained_turn": 1}
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "| Answers: refusal | 1 |" in card
    assert "| Conversations: tools | 1 |" in card


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("Paris is the capital of France."), ""),
        (Reply(LOOP), "repetition"),
        (Reply("ha " * 40), "repetition"),
        (Reply("我喜欢海。" * 12), "repetition"),
        (Reply("1. Wash the rice.\n2. Boil the water.\n3. Add salt and stir.\n4. Serve."), ""),
        (Reply("As an AI language model, I have no body."), "refusal"),
        (Reply("Paris is", "length"), "cut"),
        (Reply("  "), "empty"),
    ],
)
def test_each_filter_finds_its_answers_and_can_be_left_out(reply: Reply, reason: str) -> None:
    filters = SelfReplay("x").filters
    assert drop_reason(reply, filters) == reason
    assert drop_reason(reply, [name for name in filters if name != reason]) == ""
    assert drop_reason(replace(reply, finish_reason=CONTEXT_FULL), ()) == CONTEXT_FULL


def test_ordinary_prose_is_no_loop() -> None:
    text = Path(__file__).resolve().parents[3] / "LICENSE"
    assert not any(repeats(part) for part in text.read_text("utf-8").split("\n\n"))


@needs_client
def test_a_prompt_that_the_server_refuses_ends_alone(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    settings = prompts(*(turns(str(n)) for n in range(8)))
    refused = Fault(400, body=b'{"error": {"message": "no such prompt"}}')
    with serving(Endpoint(shown, lambda number: refused if number == 3 else None)) as server:
        model = writer(settings, server, concurrency=1)
        report = self_replay(settings, tmp_path / "out", model, IDENTITY)
    assert report["answers"] == {"kept": 7, "bad_request": 1}


@needs_client
def test_a_limit_stops_and_the_same_folder_continues(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    settings, out = prompts(*(turns(str(n)) for n in range(6))), tmp_path / "out"
    with serving(Endpoint(shown)) as server:
        limited = writer(settings, server, concurrency=1, max_tokens=1)
        report = self_replay(settings, out, limited, IDENTITY)
        assert report["stopped"] == "token_limit"
        assert server.counts.total() == 1
        assert not (out / "data").exists()
        report = self_replay(settings, out, writer(settings, server), IDENTITY)
    assert (report["stopped"], report["rows"]) == ("", 6)
    assert max(server.counts.values()) == 1
    other = replace(settings, temperature=0.5)
    with pytest.raises(ConfigError, match="temperature: this collection was started with"):
        self_replay(other, out, writer(other, server), IDENTITY)


def test_an_unpriced_model_has_no_cost_limit(prompts: Callable[..., SelfReplay]) -> None:
    settings = prompts(turns("a"))
    with pytest.raises(ConfigError, match="no price of 'm' is known"):
        writer(settings, Endpoint(shown), max_cost=1.0)
    priced = PriceTable({"m": Price(1.0, 2.0)})
    assert writer(settings, Endpoint(shown), max_cost=1.0, prices=priced).max_cost == 1.0


class Model:
    """A model in this process that writes each prompt into a file, and kills the process once."""

    def __init__(self, log: Path, kill_at: int | None = None) -> None:
        self.log, self.kill_at, self.batches = log, kill_at, 0

    def __call__(
        self, dialogues: Sequence[Sequence[Message]], max_tokens: int, tools: Sequence[str]
    ) -> list[str | None]:
        if self.batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        with self.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{len(each)} {each[-1].content}\n" for each in dialogues)
        return [self.said(each[-1].content) for each in dialogues]

    def said(self, prompt: str) -> str | None:
        if prompt.endswith("7"):
            return None  # Does not fit the context.
        return Answer(f"about {prompt}", cut=prompt.endswith("8"))


def test_a_killed_run_loses_no_batch(prompts: Callable[..., SelfReplay], tmp_path: Path) -> None:
    talks = [turns(f"p{n}" + "x" * (n % 3), "r", f"q{n}") for n in range(20)]
    settings, out, log = prompts(*talks, batch_size=4), tmp_path / "out", tmp_path / "log"

    def killed() -> None:
        self_replay(settings, out, LocalAnswers(Model(log, kill_at=5), "d"), {"sha256": "d"})

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    answered = log.read_text("utf-8").splitlines()
    assert len(answered) == 20
    assert not (out / "data").exists()

    model = LocalAnswers(Model(log), "d")
    report = self_replay(settings, out, model, {"sha256": "d"})
    asked = log.read_text("utf-8").splitlines()
    assert len(asked) == len(set(asked))
    assert asked[:20] == answered

    whole = tmp_path / "whole"
    model = LocalAnswers(Model(tmp_path / "log2"), "d")
    assert self_replay(settings, whole, model, {"sha256": "d"}) == report
    assert (whole / "data/train.jsonl").read_bytes() == (out / "data/train.jsonl").read_bytes()
    assert report["answers"]["context_full"] == 2
    assert report["answers"]["cut"] == 2
    assert report["spent"]["cost"] == 0


def test_batches_hold_prompts_of_similar_length(
    prompts: Callable[..., SelfReplay], tmp_path: Path
) -> None:
    talks = [turns("x" * (1 + 7 * n % 12)) for n in range(12)]
    log = tmp_path / "log"
    settings = prompts(*talks, batch_size=3, filters=())
    self_replay(settings, tmp_path / "out", LocalAnswers(Model(log), "d"), {"sha256": "d"})
    lengths = [len(line) for line in log.read_text("utf-8").splitlines()]
    assert lengths == sorted(lengths)


def test_a_failing_model_ends_the_run(prompts: Callable[..., SelfReplay], tmp_path: Path) -> None:
    def fails(*_: object) -> list[str]:
        raise RuntimeError("broken")

    settings = prompts(*(turns(str(n)) for n in range(6)), batch_size=2)
    with pytest.raises(RuntimeError, match="broken"):
        self_replay(settings, tmp_path / "out", LocalAnswers(fails, "d"), {"sha256": "d"})


@needs_client
def test_nothing_kept_is_an_error(prompts: Callable[..., SelfReplay], tmp_path: Path) -> None:
    settings = prompts(turns("a"), turns("b"))
    with serving(Endpoint(lambda _: "")) as server, pytest.raises(DataError) as caught:
        self_replay(settings, tmp_path / "out", writer(settings, server), IDENTITY)
    assert str(caught.value) == f"{settings.prompts}: self_replay: no answer was kept (empty 2)"
