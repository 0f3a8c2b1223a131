"""The judge against a real loopback endpoint."""

from __future__ import annotations

import pytest

from dataset_builders.conversation import Message
from dataset_builders.errors import ConfigError, EndpointError
from evaluators.models.judge import Judge
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

ASKED = [[Message("user", f"How good is {n}?")] for n in range(12)]


def test_asks_greedily_in_order_and_sends_failed_requests_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Endpoint(
        lambda messages: f"Rating of: {messages[-1]['content']}",
        fault=lambda number: Fault(status=503, body=b"{}") if number in (0, 5) else None,
    )
    with serving(server):
        keyless = {"base_url": server.url, "model": "j", "api_key_env": "OPENAI_API_KEY"}
        told = Judge(keyless, "b").ask(ASKED, max_tokens=7)
    assert [each.text for each in told] == [f"Rating of: {d[0].content}" for d in ASKED]
    assert not any(each.error for each in told)
    assert len(server.requests) == len(ASKED) + 2
    for request in server.requests:
        assert (request["temperature"], request["max_tokens"]) == (0.0, 7)


def test_one_refused_request_is_an_error_of_its_own() -> None:
    def reply(messages: list[dict[str, str]]) -> dict[str, object]:
        bad = messages[-1]["content"] == ASKED[3][0].content
        return {"content": "ok", "finish_reason": "content_filter" if bad else "stop"}

    with serving(Endpoint(reply)) as server:
        told = Judge({"base_url": server.url, "model": "j"}, "b").ask(ASKED)
    assert [bool(each.error) for each in told] == [n == 3 for n in range(len(ASKED))]
    assert told[3].error.startswith("judge: refused_by_endpoint")


def test_a_verdict_is_read_behind_the_judges_thoughts() -> None:
    thinking = "<think>\nINCORRECT at first sight\n</think>\n\nCORRECT"
    with serving(Endpoint(lambda messages: thinking)) as server:
        (told,) = Judge({"base_url": server.url, "model": "j"}, "b").ask(ASKED[:1])
    assert (told.text, told.correct) == ("CORRECT", True)


def test_an_endpoint_that_refuses_all_is_one_line() -> None:
    server = Endpoint(lambda messages: "", fault=lambda number: Fault(status=401, body=b"{}"))
    with serving(server), pytest.raises(EndpointError) as raised:
        Judge({"base_url": server.url, "model": "j"}, "b").ask(ASKED)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "needs a judge"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "judge: model: Field required"),
        ({"model": "j", "url": "x"}, "judge: option 'url' is unknown; known: model, base_url"),
        ({"model": "j"}, "OPENAI_API_KEY is not set"),
        ({"model": "j", "base_url": "http://127.0.0.1:1", "api_key_env": "NO_KEY"}, "NO_KEY is"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(
    settings: dict[str, str] | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=said):
        Judge(settings, "mt_bench")
