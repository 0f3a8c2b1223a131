"""A client against an endpoint that misbehaves in every way it can."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.endpoints.errors import EpisodeEndedError, UnprovenError
from dataset_builders.endpoints.refusals import Refusal, retry_after
from dataset_builders.endpoints.reply import Reply
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import EndpointError
from dataset_builders.rollouts.ledger import Turn
from dataset_builders.rollouts.policy import TurnRequest
from dataset_builders.rollouts.recorded_client import RecordedClient
from tests.support.endpoint import Endpoint, Fault, serving

pytest.importorskip("openai")

HELLO = [Message("user", "Hello")]


class Notes:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Turn] = {}

    async def turns(self, task_id: str, attempt: int, purpose: str = "act") -> Sequence[Turn]:
        return [turn for turn in self.kept.values() if turn.task_id == task_id]

    async def reply(self, key: str) -> Reply | None:
        return self.kept[key].reply if key in self.kept else None

    async def record(self, turn: Turn) -> bool:
        return self.kept.setdefault(turn.key, turn) is turn

    async def end(self, ending: object) -> bool:
        raise AssertionError(ending)


def turn(text: str, task_id: str) -> TurnRequest:
    return TurnRequest([Message("user", text)], task_id=task_id)


@asynccontextmanager
async def recorded(
    model: Model, sampling: Sampling, notes: Notes, *, parks: bool = False
) -> AsyncIterator[RecordedClient]:
    """A client whose replies are paid once."""
    async with EndpointClient(model, AdaptiveLimit(8), parks=parks) as transport:
        yield RecordedClient(transport, sampling, notes)


def ask(
    endpoint: Endpoint,
    *,
    times: int = 1,
    timeout: float = 5.0,
    tries: int = 4,
    patience: float = 60.0,
    sampling: Sampling | None = None,
) -> tuple[list[Reply | BaseException], EndpointClient, float]:
    """Ask so often at once; returns answers, the client and the seconds taken."""

    async def run() -> tuple[list[Reply | BaseException], EndpointClient]:
        model = Model("m", endpoint.url, timeout=timeout, tries=tries, patience=patience)
        model = Model(**{**{n: getattr(model, n) for n in model.__slots__}, "back_off": 0.02})
        async with recorded(model, sampling or Sampling(), Notes()) as client:
            asked = [client.next_turn(turn(f"Hello {n}", f"t-{n}")) for n in range(times)]
            return await asyncio.gather(*asked, return_exceptions=True), client.transport

    begun = time.monotonic()
    with serving(endpoint):
        replies, client = asyncio.run(run())
    return replies, client, time.monotonic() - begun


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    # The first request of a process loads half of the client, which short timeouts feel.
    ask(Endpoint(lambda messages: "Hi"), timeout=60)


def first(fault: Fault, number: int = 1) -> Callable[[int], Fault | None]:
    return lambda n: fault if n < number else None


def error(message: str, code: str = "") -> bytes:
    return json.dumps({"error": {"message": message, "code": code, "type": "x"}}).encode()


def later(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(429, body=error("slow down")), "http_429"),
        (Fault(429, {"Retry-After": "0"}, error("slow down")), "http_429"),
        (Fault(500, body=error("oops")), "http_500"),
        (Fault(502, body=b"<html>bad gateway</html>"), "http_502"),
        (Fault(503, {"Retry-After": "soon"}, b""), "http_503"),
        (Fault(529, body=error("overloaded")), "http_529"),
        (Fault(408, body=error("timeout")), "http_408"),
        (Fault(wait=1.5), "timeout"),
        (Fault(drip=0.05), "timeout"),
        (Fault(drop=True), "connection"),
        (Fault(body=b'{"choices": [{"mess'), "broken_response"),
        (Fault(body=b'{"choices": [{"mess', promised=5000), "connection"),
        (Fault(body=b'{"choices": []}'), "broken_response"),
        (Fault(body=b'{"choices": [{}]}'), "broken_response"),
        (Fault(body=b"[]"), "broken_response"),
        (Fault(body=b"\xff\xfe not text"), "broken_response"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.status}",
)
def test_what_passes_is_tried_again(fault: Fault, reason: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", first(fault, 2))
    replies, client, _ = ask(endpoint, timeout=0.5 if reason == "timeout" else 10)
    reply = replies[0]
    assert isinstance(reply, Reply), reply
    assert (reply.text, reply.tries) == ("Hi", 3)
    assert client.retries == {reason: 2}
    assert endpoint.counts.total() == 3


def test_a_drip_of_bytes_does_not_outlast_the_timeout() -> None:
    # Every byte comes well within it; the whole answer would take half a minute.
    endpoint = Endpoint(lambda messages: "Hi" * 100, first(Fault(drip=0.06)))
    _, client, seconds = ask(endpoint, timeout=0.5)
    assert client.retries == {"timeout": 1}
    assert seconds < 3


@pytest.mark.parametrize("header", ["1", "0.9", "date", "ms"])
def test_retry_after_holds_everybody(header: str) -> None:
    headers = {"retry-after-ms": "900"} if header == "ms" else {"Retry-After": header}
    if header == "date":
        headers = {"Retry-After": later(2)}  # Its seconds are whole: 1 to 2 from now.
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(429, headers, error("wait"))))
    replies, client, seconds = ask(endpoint, times=12)
    assert all(isinstance(reply, Reply) for reply in replies)
    assert client.retries == {"http_429": 1}
    assert 0.8 < seconds < 4


def test_retry_after_nothing_is_no_leave_to_hammer() -> None:
    fault = Fault(429, {"Retry-After": "0"}, error("slow down"))
    replies, _, seconds = ask(Endpoint(lambda messages: "Hi", first(fault, 6)))
    assert isinstance(replies[0], Reply)
    # At least half of 0.02 s, doubled five times.
    assert seconds > 0.6


def test_a_wait_beyond_patience_stops_the_run() -> None:
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(429, {"Retry-After": "7200"})))
    replies, _, seconds = ask(endpoint)
    assert isinstance(replies[0], EndpointError)
    assert "2.0 hours" in str(replies[0])
    assert seconds < 3


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (401, "Incorrect API key", "invalid_api_key"),
        (403, "no access to this model", ""),
        (404, "the model `m` does not exist", "model_not_found"),
        (429, "You exceeded your current quota", "insufficient_quota"),
        (400, "unknown parameter: 'max_tokens'", "unsupported_parameter"),
    ],
)
def test_what_no_retry_mends_stops_the_run(status: int, message: str, code: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(status, body=error(message, code)))
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EndpointError)
    assert message in str(replies[0])
    assert "\n" not in str(replies[0])
    assert endpoint.counts.total() == 1


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "This model's maximum context length is 4096 tokens", "context_full"),
        (400, "request exceeds the available context size", "context_full"),
        (413, "Payload Too Large", "context_full"),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 2048", "context_full"),
        (400, "The response was filtered: content management policy", "refused_by_endpoint"),
        (403, "Input was flagged by moderation", "refused_by_endpoint"),
    ],
)
def test_what_one_episode_is_to_blame_for_ends_it(status: int, message: str, reason: str) -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(status, body=error(message)))
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == reason
    assert endpoint.counts.total() == 1


def test_a_refused_request_ends_one_episode_once_others_are_answered() -> None:
    async def run(url: str) -> None:
        model = Model("m", url, back_off=0.01, tries=2)
        async with recorded(model, Sampling(), Notes()) as client:
            await client.next_turn(TurnRequest(HELLO, task_id="a"))
            with pytest.raises(EpisodeEndedError, match="odd") as ended:
                await client.next_turn(turn("?", "b"))
            assert ended.value.reason == "bad_request"

    endpoint = Endpoint(
        lambda messages: "Hi", lambda n: Fault(400, body=error("odd message")) if n == 1 else None
    )
    with serving(endpoint):
        asyncio.run(run(endpoint.url))


def test_a_request_that_always_fails_ends_its_episode_and_an_outage_the_run() -> None:
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(500, body=error("cannot")) if last == "Hello 0" else None

    endpoint = Endpoint(lambda messages: "Hi", fault)
    replies, _, _ = ask(endpoint, times=8)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == "endpoint_error"
    assert all(isinstance(reply, Reply) for reply in replies[1:])

    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(500, body=error("down")))
    replies, _, _ = ask(endpoint, times=3)
    assert all(isinstance(reply, EndpointError) for reply in replies)


def test_endless_429_stops_the_run_when_patience_ends() -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(429, body=error("slow down")))
    replies, _, seconds = ask(endpoint, tries=2, patience=1.0)
    assert isinstance(replies[0], EndpointError)
    assert endpoint.counts.total() > 3
    assert seconds < 10


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": None, "tool_calls": [{"id": "1", "type": "function"}]}, ""),
        ({"content": None, "tool_calls": "nonsense", "finish_reason": "tool_calls"}, ""),
        ({"content": "", "reasoning_content": "long thoughts", "finish_reason": "length"}, ""),
        ({"content": None, "refusal": "I can't help."}, "I can't help."),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "AB"),
        ({"content": "broken \ud800 half"}, "broken \ufffd half"),
    ],
)
def test_odd_turns_are_turns(message: dict[str, object], text: str) -> None:
    replies, client, _ = ask(Endpoint(lambda messages: dict(message)))
    assert isinstance(replies[0], Reply), replies[0]
    assert replies[0].text == text
    assert not client.retries
    assert replies[0].calls == ("tool_calls" in message)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "<think>\na\n</think>\n\nb"}, "b", "a"),
        ({"content": "a\n</think>\n\nb"}, "b", "a"),
        ({"content": "<think>a", "finish_reason": "length"}, "", "a"),
        ({"content": "b", "reasoning_content": "a"}, "b", "a"),
        ({"content": "b", "reasoning": "a"}, "b", "a"),
        ({"content": None, "reasoning": "a"}, "", "a"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": "b"},
                ]
            },
            "b",
            "a",
        ),
    ],
)
def test_thoughts_are_kept_beside_the_turn(
    message: dict[str, object], text: str, reasoning: str
) -> None:
    replies, _, _ = ask(Endpoint(lambda messages: dict(message)))
    assert isinstance(replies[0], Reply), replies[0]
    assert (replies[0].text, replies[0].reasoning) == (text, reasoning)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ("x", False),
        ([], False),
        ({"prompt_tokens": None}, False),
        ({"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": 5}, True),
    ],
)
def test_a_turn_with_an_odd_count_of_tokens_is_a_turn(usage: object, counted: bool) -> None:
    body = {"choices": [{"message": {"content": "Hi"}}], "usage": usage}
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(body=json.dumps(body).encode())))
    (reply,), _, _ = ask(endpoint)
    assert isinstance(reply, Reply), reply
    # Paid for: it must not be asked for again.
    assert (reply.text, reply.counted, endpoint.counts.total()) == ("Hi", counted, 1)


def test_a_filtered_turn_is_paid_and_ends_the_episode() -> None:
    endpoint = Endpoint(lambda messages: {"content": "", "finish_reason": "content_filter"})
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == "refused_by_endpoint"


def test_what_was_paid_is_not_asked_again() -> None:
    async def run(url: str) -> None:
        notes = Notes()
        async with recorded(Model("m", url), Sampling(), notes) as client:
            both = [client.next_turn(TurnRequest(HELLO, task_id=name)) for name in ("a", "b")]
            assert len({reply.text for reply in await asyncio.gather(*both)}) == 1
            await client.next_turn(TurnRequest(HELLO, task_id="a"))
            await client.next_turn(TurnRequest(HELLO, task_id="a", attempt=1))

    endpoint = Endpoint(lambda messages: "Hi")
    with serving(endpoint):
        asyncio.run(run(endpoint.url))
    assert endpoint.counts.total() == 2


def test_the_request_says_what_was_set() -> None:
    endpoint = Endpoint(lambda messages: "Hi")
    sampling = Sampling(0.7, 0.9, 5, 33, ("\nObs",), "max_completion_tokens", {"min_p": 0.1})
    ask(endpoint, sampling=sampling)
    assert endpoint.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello 0"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "max_completion_tokens": 33,
        "stop": ["\nObs"],
        "min_p": 0.1,
    }


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after({"retry-after": "30"}) == 30
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, now) == 60
    assert retry_after({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, now) == 0
    for nonsense in ("", "soon", "-5", "nan", "inf"):
        assert retry_after({"retry-after": nonsense}, now) is None
    assert retry_after({}) is None


def refusal(
    status: int, message: str, headers: dict[str, str] | None = None, **error: object
) -> Refusal:
    return Refusal(status, headers or {}, {"message": message, **error}, message)


@pytest.mark.parametrize(
    ("told", "out_of_quota", "wait"),
    [
        # Codes come first, whatever the words and whatever is asked to be waited.
        (refusal(429, "add a payment method", code="rate_limit_exceeded"), False, None),
        (refusal(429, "slow down", {"retry-after": "5"}, code="insufficient_quota"), True, 5.0),
        (refusal(429, "x", type="insufficient_quota", code=None), True, None),
        (refusal(429, "buy credits for more", type="rate_limit_error"), False, None),
        (refusal(429, "see your billing page", type="tokens", code=429), False, None),
        # Then hints to wait.
        (refusal(429, "Over your quota: see billing", {"retry-after": "2"}), False, 2.0),
        (refusal(429, "Quota is over, see billing. Please retry in 37.5s."), False, 37.5),
        (refusal(429, "No credit left for now, try again in 1m30s"), False, 90.0),
        (refusal(429, "payment tier 1: try again in 20ms."), False, 0.02),
        (refusal(429, "quota: {'retryDelay': '12s'}"), False, 12.0),
        (refusal(429, "quota: try again in 2 hours and buy credits"), False, 7200.0),
        # Then words: those of a rate before those of an account.
        (refusal(429, "free-models-per-min. Add 10 credits to unlock 1000 a day"), False, None),
        (refusal(429, "You exceeded your current quota, check plan and billing"), True, None),
        (refusal(429, "Your credit balance is too low"), True, None),
        (refusal(429, "slow down"), False, None),
        (refusal(429, ""), False, None),
    ],
)  # fmt: skip
def test_codes_come_before_hints_and_hints_before_words(
    told: Refusal, out_of_quota: bool, wait: float | None
) -> None:
    assert told.out_of_quota is out_of_quota
    assert told.wait == (None if wait is None else pytest.approx(wait))


def test_codes_are_found_where_proxies_put_them() -> None:
    for body in (
        [{"error": {"status": "RESOURCE_EXHAUSTED", "code": "rate_limit"}}],
        {"error": {"error": {"type": "rate_limit_error"}}},
    ):
        assert not Refusal(429, {}, body, "billing").out_of_quota


@pytest.mark.parametrize(
    ("status", "message", "error", "full"),
    [
        (400, "prompt is too long: 205017 tokens > 200000 maximum", {}, True),
        (400, "The input (9000 tokens) is longer than the model's context length", {}, True),
        (400, "`inputs` must have less than 1024 tokens. Given: 1400", {}, True),
        (400, "x", {"code": "context_length_exceeded"}, True),
        (400, "'max_tokens' is too large: 512. This model's maximum context length is 2048",
         {"param": "max_tokens"}, True),
        (400, "decoder prompt (length 70) is longer than the maximum model length of 64", {}, True),
        (400, "Invalid 'stop': array too long. Expected an array with maximum length 4",
         {"param": "stop"}, False),
        (400, "Invalid 'stop': array too long. Expected an array with maximum length 4", {}, False),
        (400, "1 validation error: temperature must be <= 2.0", {}, False),
        (422, "body.top_logprobs: value must be <= 20", {}, False),
        (400, "stop sequence 3 too long", {}, False),
        (400, "Unrecognized request argument: context_length", {}, False),
        (400, "string too long", {"param": "user", "code": "string_above_max_length"}, False),
        (400, "string too long", {"param": "messages[1].content",
         "code": "string_above_max_length"}, True),
        (400, "max_tokens must be <= 4096", {"param": "max_tokens"}, False),
    ],
)  # fmt: skip
def test_a_setting_that_is_too_long_is_no_full_context(
    status: int, message: str, error: dict[str, object], full: bool
) -> None:
    assert refusal(status, message, **error).context_full is full


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (429, "Request too large for m on tokens per min (TPM): Limit 10,000, Requested 15,000.",
         "rate_limit_exceeded"),
        (429, "tokens per minute: limit: 6000, requested: 7000", ""),
        (413, "Request too large for m: Limit 6000, Requested 7000", "rate_limit_exceeded"),
    ],
)  # fmt: skip
def test_a_request_larger_than_a_minute_ends_its_episode_and_holds_nobody(
    status: int, message: str, code: str
) -> None:
    large = Fault(status, {"Retry-After": "60"}, error(message, code))

    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return large if last == "Hello 3" else None

    endpoint = Endpoint(lambda messages: "Hi", fault)
    replies, client, seconds = ask(endpoint, times=8)
    assert isinstance(replies[3], EpisodeEndedError)
    assert replies[3].reason == "request_too_large"
    assert sum(isinstance(reply, Reply) for reply in replies) == 7
    assert (client.limit.cuts, client.retries) == (0, {})
    assert seconds < 10


def test_a_limit_that_some_room_is_left_under_is_waited_for() -> None:
    told = "Limit 3, Used 3, Requested 1. Add a payment method: see billing"
    endpoint = Endpoint(lambda messages: "Hi", first(Fault(429, body=error(told))))
    replies, client, _ = ask(endpoint)
    assert isinstance(replies[0], Reply)
    assert client.retries == {"http_429": 1}


def test_one_request_that_is_always_told_to_wait_does_not_hold_the_others() -> None:
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(429, {"Retry-After": "0.1"}, error("wait")) if last == "Hello 0" else None

    async def run(url: str) -> tuple[BaseException | None, int]:
        model = Model("m", url, tries=3, back_off=0.01)
        async with recorded(model, Sampling(), Notes(), parks=True) as client:

            async def others() -> None:
                for number in range(400):
                    await client.next_turn(turn(f"{number}", "o"))
                    await asyncio.sleep(0.005)
                    if held.done():
                        return

            held = asyncio.ensure_future(client.next_turn(turn("Hello 0", "h")))
            await others()
            await asyncio.wait([held], timeout=10)
            return held.exception(), client.transport.limit.cuts

    endpoint = Endpoint(lambda messages: "Hi", fault)
    with serving(endpoint):
        failure, cuts = asyncio.run(run(endpoint.url))
    assert isinstance(failure, UnprovenError)
    assert "others were answered" in str(failure)
    refused = sum("Hello 0" in str(request["messages"]) for request in endpoint.requests)
    assert cuts <= refused - 3


def test_a_server_that_dies_after_answering_leaves_the_request_open() -> None:
    # Others were answered after this one was sent first, but not since it failed.
    def fault(number: int) -> Fault | None:
        last = endpoint.requests[-1]["messages"][0]["content"]
        return Fault(wait=0.4, drop=True) if last == "slow" or number > 4 else None

    async def run(url: str) -> BaseException | None:
        model = Model("m", url, tries=3, back_off=0.01)
        async with recorded(model, Sampling(), Notes(), parks=True) as client:
            slow = asyncio.ensure_future(client.next_turn(turn("slow", "s")))
            await asyncio.sleep(0.05)
            for number in range(4):
                await client.next_turn(turn(f"{number}", "q"))
            await asyncio.wait([slow], timeout=10)
            return slow.exception()

    endpoint = Endpoint(lambda messages: "Hi", fault)
    with serving(endpoint):
        failure = asyncio.run(run(endpoint.url))
    assert isinstance(failure, EndpointError), failure
    assert "no request answered meanwhile" in str(failure)
