"""Limits of an episode and of a run of the collector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataset_builders.collection.collector import run
from dataset_builders.errors import ConfigError, EndpointError
from dataset_builders.rollouts.limits import Limits
from tests.dataset_builders.collection.test_collector import PRICES, config, endings
from tests.support.endpoint import ANSWER, SELECT, Endpoint, serving

pytest.importorskip("openai")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(steps=2), "step_limit"),
        (Limits(tokens=400), "token_limit"),
        (Limits(cost=0.0005), "cost_limit"),
        (Limits(seconds=0.3), "time_limit"),
    ],
)
def test_limits_end_episodes_by_name(tmp_path: Path, limits: Limits, reason: str) -> None:
    endpoint = Endpoint(lambda messages: SELECT, latency=0.06)
    with serving(endpoint):
        report = run(config(tmp_path, endpoint.url, 3, limits=limits, prices=PRICES, min_reward=0))
    assert report["dropped"] == {reason: 3}
    for ending in endings(tmp_path):
        assert 1 <= ending.trajectory.num_rounds < 15
        assert ending.trajectory.reward == 0


def test_the_runs_limit_on_cost_leaves_open_what_a_higher_one_ends(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: SELECT)
    with serving(endpoint):
        whole = config(tmp_path, endpoint.url, 8, prices=PRICES)
        low = replace(whole, limits=Limits(cost=0.004))
        report = run(low)
        assert report["stopped"] == "run_cost_limit"
        assert report["open"] > 0
        # At most the requests that were in flight go beyond.
        assert 0.004 <= report["cost"] < 0.004 + 4 * 0.0015
        assert run(low)["requests"] == report["requests"]
        end = run(whole)
    assert (end["open"], end["stopped"]) == (0, "")
    assert max(endpoint.counts.values()) == 1


def test_a_limit_on_cost_counts_what_was_paid_before_prices_were_known(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        assert run(config(tmp_path, endpoint.url, 2))["cost"] is None
        more = replace(config(tmp_path, endpoint.url, 8, prices=PRICES), limits=Limits(cost=1e-6))
        report = run(more)
    assert (report["stopped"], report["requests"]) == ("run_cost_limit", 2)
    tokens = report["prompt_tokens"], report["completion_tokens"]
    assert report["cost"] == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6)


def test_a_limit_on_cost_is_refused_where_earlier_replies_tell_no_tokens(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER, usage=False)
    with serving(endpoint):
        run(config(tmp_path, endpoint.url, 2))
        more = replace(config(tmp_path, endpoint.url, 8, prices=PRICES), limits=Limits(cost=1.0))
        with pytest.raises(ConfigError, match="2 replies"):
            run(more)


def test_a_limit_reached_with_the_last_reply_stops_nothing(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        whole = replace(config(tmp_path, endpoint.url, 1), limits=Limits(tokens=1))
        for _ in range(2):
            report = run(whole)
            assert (report["done"], report["open"], report["stopped"]) == (1, 0, "")


def test_the_runs_limit_on_time_drains(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: SELECT, latency=0.02)
    with serving(endpoint):
        report = run(replace(config(tmp_path, endpoint.url, 200), limits=Limits(seconds=0.5)))
    assert report["stopped"] == "run_time_limit"
    assert 0 < report["done"] < 200
    assert {ending.trajectory.exit_reason for ending in endings(tmp_path)} == {"round_limit"}


def test_limits_need_prices_and_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="price of m"):
        run(config(tmp_path / "a", "http://127.0.0.1:1/v1", limits=Limits(cost=1.0)))
    endpoint = Endpoint(lambda messages: ANSWER, usage=False)
    with serving(endpoint):
        with pytest.raises(EndpointError, match="does not report its token usage"):
            run(config(tmp_path / "b", endpoint.url, limits=Limits(tokens=1000)))
        assert run(config(tmp_path / "c", endpoint.url, prices=PRICES))["cost"] is None
