"""Refused requests: whose fault they are, by codes, hints and words."""

from __future__ import annotations

import json

import pytest

from dataset_builders.endpoints.errors import EpisodeEndedError, judge
from dataset_builders.endpoints.refusals import Refusal
from dataset_builders.endpoints.reply import Reply
from tests.dataset_builders.endpoints.test_faults import ask, error, first
from tests.support.endpoint import Endpoint, Fault

pytest.importorskip("openai")


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


@pytest.mark.parametrize(
    ("body", "reason", "shown"),
    [
        ({"detail": "The prompt is too long"}, "context_full", "The prompt is too long"),
        (
            {"error": "`inputs` must have less than 4096 tokens", "error_type": "validation"},
            "context_full",
            "must have less than 4096 tokens",
        ),
        ({"detail": [{"loc": ["body"], "msg": "flagged"}]}, "refused_by_endpoint", "flagged"),
    ],
)  # fmt: skip
def test_an_error_outside_of_error_message_is_read_and_shown(
    body: object, reason: str, shown: str
) -> None:
    endpoint = Endpoint(lambda messages: "Hi", lambda n: Fault(400, body=json.dumps(body).encode()))
    replies, _, _ = ask(endpoint)
    assert isinstance(replies[0], EpisodeEndedError)
    assert replies[0].reason == reason
    assert shown in str(replies[0])


def test_a_wait_in_the_details_of_an_error_is_kept() -> None:
    class LimitedError(Exception):
        status_code = 429
        body = {"message": "Quota exceeded", "details": [{"retryDelay": "12s"}]}  # noqa: RUF012

    failure = judge(LimitedError("Error code: 429 - Quota exceeded"), proven=False)
    assert (failure.verdict, failure.wait) == ("retry", 12.0)
    assert failure.message == "HTTP 429: Error code: 429 - Quota exceeded"
