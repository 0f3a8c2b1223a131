"""A request that is never answered ends alone; an endpoint that answers nobody stops the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.endpoints.endpoint import Endpoint as Place
from dataset_builders.errors import EndpointError
from dataset_builders.instructions.derive import KEPT
from dataset_builders.instructions.derive_run import DeriveSettings, derive
from dataset_builders.instructions.run_io import Writer
from tests.dataset_builders.instructions.test_derivation import GUARD, SOUND, thoughts, write
from tests.dataset_builders.instructions.test_self_instruct import (
    ADD,
    MAXIMUM,
    RENAME,
    SETTINGS,
    make,
)
from tests.support.endpoint import Endpoint, Fault, Messages, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")


def odd(status: int) -> Fault:
    return Fault(status, body=b'{"error": {"message": "odd"}}')


def writer(server: Endpoint) -> Writer:
    return Writer(Place("writer", server.url, tries=2, back_off=0.01, timeout=20.0))


def refusing(
    reply: Callable[[Messages], str], refused: Callable[[int, str], Fault | None]
) -> Endpoint:
    """Refuses by the number of a request among different ones, and by its last message."""
    order: list[str] = []

    def fault(number: int) -> Fault | None:
        asked = str(endpoint.requests[number]["messages"])
        if asked not in order:
            order.append(asked)
        return refused(order.index(asked), asked)

    endpoint = Endpoint(reply, fault)
    return endpoint


def derived(
    server: Endpoint, folder: Path, records: list[Any], num_tasks: int | None = None
) -> dict[str, Any]:
    settings = DeriveSettings(
        write(folder / "p.jsonl", records), folder / "out", num_tasks, writer=writer(server)
    )
    return asyncio.run(derive(settings, GUARD))


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("record", [0, 3])
def test_a_record_that_is_always_refused_is_dropped_alone(
    status: int, record: int, tmp_path: Path
) -> None:
    words = SOUND[record]["question"]
    server = refusing(thoughts, lambda n, asked: odd(status) if words in asked else None)
    with serving(server):
        report = derived(server, tmp_path, SOUND)
    assert report["records"] == {KEPT: 3, "no_usable_thoughts": 1}
    reason = "bad_request" if status == 400 else "endpoint_error"
    assert report["first"]["no_usable_thoughts"].endswith(reason)


@pytest.mark.parametrize("status", [400, 500])
def test_the_last_record_ends_alone_where_the_endpoint_has_answered(
    status: int, tmp_path: Path
) -> None:
    """Also in a later session, where the other replies are on disk; a 500 stays open there."""
    words = SOUND[3]["question"]
    server = refusing(thoughts, lambda n, asked: odd(status) if words in asked else None)
    with serving(server):
        assert derived(server, tmp_path, SOUND[:3])["records"] == {KEPT: 3}
        if status == 400:
            report = derived(server, tmp_path, SOUND)
            assert report["records"] == {KEPT: 3, "no_usable_thoughts": 1}
        else:
            with pytest.raises(EndpointError, match="odd"):
                derived(server, tmp_path, SOUND)


def test_self_instruct_counts_a_request_that_is_always_refused(tmp_path: Path) -> None:
    texts = iter([MAXIMUM, RENAME, ADD])
    server = refusing(lambda messages: next(texts), lambda n, asked: odd(500) if n == 1 else None)
    with serving(server):
        report = make(writer(server), SETTINGS, tmp_path)
    assert report["proposals"] == {"kept": 3}
    assert report["unusable"] == {"endpoint_error": 1}
    assert report["requests"] == 4


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("status", [400, 503])
def test_an_endpoint_that_answers_nobody_stops_the_run(
    status: int, concurrency: int, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, concurrency=concurrency)
    texts = iter([MAXIMUM, RENAME, ADD])
    server = Endpoint(lambda messages: next(texts), lambda number: odd(status))
    with serving(server):
        with pytest.raises(EndpointError, match="odd"):
            make(writer(server), settings, tmp_path)
        server.fault = lambda number: None
        assert make(writer(server), settings, tmp_path)["proposals"] == {"kept": 3}


def test_an_endpoint_that_fails_for_good_midway_stops_the_run(tmp_path: Path) -> None:
    texts = iter([MAXIMUM, RENAME, ADD])
    server = refusing(lambda messages: next(texts), lambda n, asked: odd(500) if n else None)
    with serving(server), pytest.raises(EndpointError, match="3 different requests"):
        make(writer(server), SETTINGS, tmp_path)


@pytest.mark.parametrize("status", [400, 500, 503])
@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_a_first_record_that_fails_alone_waits_for_others(
    status: int, wanted: int, tmp_path: Path
) -> None:
    """Also where it alone is in flight, and by a status that may be an outage."""
    words = SOUND[0]["question"]
    server = refusing(thoughts, lambda n, asked: odd(status) if words in asked else None)
    with serving(server):
        report = derived(server, tmp_path, SOUND, wanted)
    assert report["records"][KEPT] == min(wanted, 3)
    assert report["records"].total() == 4
    assert report["stopped"] == ("enough" if wanted < 4 else "")


def test_a_record_that_failed_alone_is_kept_once_the_endpoint_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset_builders.instructions.derive_run._WINDOW", 1)
    words = SOUND[0]["question"]
    failures = iter([odd(503)] * 4)
    server = refusing(thoughts, lambda n, asked: next(failures, None) if words in asked else None)
    with serving(server):
        report = derived(server, tmp_path, SOUND)
    assert report["records"] == {KEPT: 4}
    assert report["spent"]["requests"] == 4


@pytest.mark.parametrize("status", [400, 503])
def test_self_instruct_goes_on_after_a_request_that_fails_alone(
    status: int, tmp_path: Path
) -> None:
    texts = iter([MAXIMUM, RENAME, ADD])
    # After a 400 the client moves the system message, which makes another request.
    refused = 2 if status == 400 else 1
    server = refusing(
        lambda messages: next(texts), lambda n, asked: odd(status) if n < refused else None
    )
    with serving(server):
        report = make(writer(server), replace(SETTINGS, concurrency=1), tmp_path)
    assert report["proposals"] == {"kept": 3}
    assert report["unusable"] == {"bad_request" if status == 400 else "endpoint_error": 1}


def test_a_short_run_without_any_answer_is_an_error(tmp_path: Path) -> None:
    server = Endpoint(lambda messages: MAXIMUM, lambda number: odd(503))
    with serving(server), pytest.raises(EndpointError, match="odd"):
        make(writer(server), replace(SETTINGS, concurrency=1, max_requests=2), tmp_path)
