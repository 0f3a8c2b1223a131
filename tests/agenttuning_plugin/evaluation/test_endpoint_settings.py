"""Sampling fields of a served model and of the judge; addresses that cannot be right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from agenttuning_plugin.cli.request_options import json_fields
from agenttuning_plugin.evaluation.served_sampling import configured
from dataset_builders.conversation import Message
from dataset_builders.endpoints.address import check_address, hint, lacks_scheme
from dataset_builders.endpoints.endpoint import Endpoint as Place
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import ConfigError, EndpointError
from evaluators.evaluator import EvalTarget
from evaluators.models.endpoint import EndpointModel, served_models
from evaluators.models.judge import Judge
from evaluators.models.judge_settings import JudgeSettings
from evaluators.models.target import Decoding
from tests.support.endpoint import Endpoint, serving
from tests.support.json_server import serving_json

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

ASKED = [[Message("user", "x")]]
CLOSED = "http://127.0.0.1:9/v1"


class Listing:
    """A server that lists one model of an owner, and keeps what it is sent."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.sent: list[dict[str, Any]] = []

    def __call__(self, asked: dict[str, Any]) -> Any:
        if not asked:
            return {
                "object": "list",
                "data": [{"id": "m", "object": "model", "owned_by": self.owner}],
            }
        self.sent.append(asked)
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}
        return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


@pytest.fixture(params=["vllm", "sglang", "openai", ""])
def listing(request: pytest.FixtureRequest) -> Listing:
    return Listing(request.param)


@pytest.fixture
def address(listing: Listing) -> Iterator[str]:
    with serving_json(listing) as url:
        yield f"{url}v1"


def said(address: str, sampling: Sampling, decoding: Decoding) -> None:
    subject = EvalTarget(None, None, server=EndpointModel(Place("m", address, tries=1)))
    configured(subject, sampling)
    assert isinstance(subject.server, EndpointModel)
    try:
        assert subject.language_model().chat(ASKED, decoding) == ["ok"]
    finally:
        subject.server.close()


def test_a_server_that_fills_fields_is_sent_neutral_ones(address: str, listing: Listing) -> None:
    said(address, Sampling(extra={"min_p": 0.1}), Decoding(4))
    said(address, Sampling(), Decoding(4, 0.7, 0.9, seed=3))
    greedy, drawn = listing.sent
    fills = listing.owner in ("vllm", "sglang")
    assert (greedy["temperature"], greedy["max_tokens"], greedy["min_p"]) == (0.0, 4, 0.1)
    assert ("repetition_penalty" in greedy, "top_k" in greedy) == (fills, fills)
    assert (drawn["temperature"], drawn["top_p"], drawn["seed"]) == (0.7, 0.9, 3)
    if fills:
        assert (drawn["repetition_penalty"], drawn["top_k"], drawn["min_p"]) == (1.0, -1, 0.0)


def test_options_reach_the_server(address: str, listing: Listing) -> None:
    fields = {"reasoning_effort": "low"}
    said(address, Sampling(1.0, token_field="max_completion_tokens", extra=fields), Decoding(4))
    [body] = listing.sent
    assert (body["temperature"], body["max_completion_tokens"]) == (1.0, 4)
    assert (body["reasoning_effort"], "max_tokens" in body) == ("low", False)


def test_options_for_a_model_that_is_loaded_here_are_refused() -> None:
    local = EvalTarget(object(), None)
    assert configured(local, Sampling()) is local
    with pytest.raises(ConfigError, match="expected a URL"):
        configured(local, Sampling(temperature=1.0))


def test_the_judge_is_sampled_as_it_is_set() -> None:
    endpoint = Endpoint(lambda messages: "CORRECT")
    with serving(endpoint):
        given = JudgeSettings(
            *("j", endpoint.url, "OPENAI_API_KEY"),
            *(1.0, "max_completion_tokens", json_fields(['reasoning_effort="low"'])),
        )
        assert Judge(given, "b").ask(ASKED, 16)[0].correct
        default = JudgeSettings("j", endpoint.url)
        Judge(default, "b").ask(ASKED, 16)
    first, second = endpoint.requests
    assert (first["temperature"], first["max_completion_tokens"]) == (1.0, 16)
    assert first["reasoning_effort"] == "low"
    assert (second["temperature"], second["max_tokens"]) == (0.0, 16)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": "hot"}, "judge: temperature: found 'hot'"),
        ({"token_field": "tokens"}, "judge: token_field: found 'tokens'"),
        ({"request": "x"}, "judge: request: found 'x'"),
        ({"base_url": "127.0.0.1:8000/v1"}, "expected a scheme: http://127.0.0.1:8000/v1"),
    ],
)
def test_settings_of_the_judge_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Judge({"model": "j", "base_url": CLOSED, **settings}, "b")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("127.0.0.1:8000/v1", True), ("localhost:8000/v1", True), ("localhost", True),
        ("my-host.local:8000", True), ("10.0.0.1/v1", True), ("http://127.0.0.1:8000/v1", False),
        ("meta-llama/Llama-2-7b", False), ("models/v1", False), ("gpt-4.1", False),
        ("org/model:8b", False),
    ],
)  # fmt: skip
def test_addresses_without_a_scheme(text: str, bare: bool) -> None:
    assert lacks_scheme(text) is bare
    if bare:
        with pytest.raises(ConfigError, match=f"expected a scheme: http://{text}"):
            check_address(text)


def test_what_a_404_says_of_the_address() -> None:
    assert hint("http://h:1", 404) == " (the address has no /v1: is it http://h:1/v1?)"
    assert hint("http://h:1/", 404).endswith("is it http://h:1/v1?)")
    assert hint("http://h:1/v1", 404) == hint("http://h:1/v1beta/openai", 404) == ""
    assert hint("http://h:1", 400) == hint("http://h:1", None) == ""


def test_a_refused_connection_says_so() -> None:
    with pytest.raises(EndpointError, match="connection refused: nothing listens"):
        served_models(Place("m", CLOSED))
    model = EndpointModel(Place("m", CLOSED, tries=2, back_off=0.01))
    with pytest.raises(EndpointError, match="connection refused: nothing listens"):
        model.chat(ASKED, Decoding(2))
    model.close()


def evaluated(*options: str) -> str:
    from agenttuning_plugin.cli.main import app

    ran = CliRunner().invoke(app, ["evaluate", "--suite", "database", "--limit", "1", *options])
    return f"{ran.output} {ran.exception}"


@pytest.mark.parametrize("named", [False, True])
def test_the_command_says_what_is_wrong_with_an_address(named: bool) -> None:
    name = ["--model-name", "m"] if named else []
    bare = evaluated("--model", "127.0.0.1:9/v1", *name)
    assert "expected a scheme: http://127.0.0.1:9/v1" in bare
    assert "connection refused" in evaluated("--model", CLOSED, *name)
    told = evaluated("--model", CLOSED, *name, "--request", "x=")
    assert "--request: found 'x=', expected name=JSON" in told


def test_a_bare_text_is_asked_for_without_the_templates_variables(
    listing: Listing, address: str
) -> None:
    model = EndpointModel(Place("m", address, tries=1))
    model.configure(Sampling(extra={"chat_template_kwargs": {"enable_thinking": False}}))
    model.chat(ASKED, Decoding(4))
    model.continue_text(["x"], Decoding(4))
    model.close()
    assert ["chat_template_kwargs" in body for body in listing.sent] == [True, False]
