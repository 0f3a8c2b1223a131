"""A model behind a server answers as it does in this process, and servers' faults are told."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Message
from dataset_builders.endpoints.endpoint import Endpoint as Place
from dataset_builders.errors import ConfigError, EndpointError

for _module in ("torch", "transformers", "fastapi", "uvicorn", "openai", "peft"):
    pytest.importorskip(_module)

import torch  # noqa: E402
import transformers  # noqa: E402

from evaluators.models.endpoint import EndpointModel, served_models  # noqa: E402
from evaluators.models.target import Decoding, EvalTarget, LanguageModel  # noqa: E402
from tests.support.endpoint import Endpoint, Fault, serving  # noqa: E402
from tests.support.served_model import serving_model  # noqa: E402

LETTERS = ["A", "B", "C", "D"]
ASKED = [[Message("user", f"{number}: which letter?")] for number in range(12)]


@pytest.fixture(scope="module")
def lettered(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with letters among its likeliest tokens."""
    folder = tmp_path_factory.mktemp("lettered")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    ids = tokenizer.convert_tokens_to_ids(LETTERS)
    with torch.no_grad():
        model.get_input_embeddings().weight[ids] *= 8
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def local(lettered: Path) -> LanguageModel:
    model = transformers.AutoModelForCausalLM.from_pretrained(lettered, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(lettered)
    return EvalTarget(model.eval(), tokenizer).language_model()


@pytest.fixture(scope="module")
def address(lettered: Path) -> Iterator[str]:
    with serving_model(lettered) as url:
        yield url


@pytest.fixture
def served(address: str) -> Iterator[EndpointModel]:
    model = EndpointModel(place(address))
    yield model
    model.close()


def place(url: str, **settings: Any) -> Place:
    return Place("base", url, **{"tries": 3, "back_off": 0.01, "timeout": 60.0, **settings})


def faulty(fault: Any, **settings: Any) -> Endpoint:
    return Endpoint(reply=lambda messages: messages[-1]["content"].upper(), fault=fault, **settings)


def test_a_server_answers_as_the_model_does(served: EndpointModel, local: LanguageModel) -> None:
    asked = [*ASKED[:3], [Message("system", "Be brief."), *ASKED[3]]]
    decoding = Decoding(6)
    with torch.no_grad():
        expected = local.chat(asked, decoding)
        assert served.chat(asked, decoding) == expected
        texts = ["once upon", "def f(x):"]
        assert served.continue_text(texts, decoding) == local.continue_text(texts, decoding)
        stopped = Decoding(6, stop=(str(expected[0])[1],))
        assert served.chat(asked, stopped) == local.chat(asked, stopped) != expected


def test_what_does_not_fit_is_none_and_the_others_are_answered(served: EndpointModel) -> None:
    long = [Message("user", "x y " * 5000)]
    answers = served.chat([long, ASKED[0]], Decoding(2))
    assert answers[0] is None
    assert isinstance(answers[1], str)
    assert served.continue_text(["x y " * 5000], Decoding(2)) == [None]
    assert served.next_token_logprobs([long], LETTERS) == [None]


def test_choices_by_probability_are_the_models(served: EndpointModel, local: LanguageModel) -> None:
    with torch.no_grad():
        here = local.next_token_logprobs(ASKED, LETTERS)
    there = served.next_token_logprobs(ASKED, LETTERS)
    told = 0
    for mine, theirs in zip(here, there, strict=True):
        assert mine is not None
        assert theirs is not None
        for one, other in zip(mine, theirs, strict=True):
            # The server lists a letter's likelier spelling first, and the other one perhaps.
            assert other == -math.inf or one - math.log(2) <= other + 1e-4 <= one + 2e-4
        if max(theirs) > -math.inf:
            told += 1
            assert mine.index(max(mine)) == theirs.index(max(theirs))
    assert told >= len(ASKED) / 2


def test_names_of_served_models(address: str) -> None:
    assert served_models(place(address)) == ["base"]
    with pytest.raises(EndpointError, match="no list of models"):
        served_models(place("http://127.0.0.1:9/v1"))


def test_an_address_without_v1_says_so(address: str) -> None:
    bare = place(address.removesuffix("/v1"))
    with pytest.raises(EndpointError, match=r"404.*has no /v1: is it http://[\d.:]+/v1\?"):
        served_models(bare)
    model = EndpointModel(bare)
    with pytest.raises(EndpointError, match=r"404.*has no /v1: is it http://[\d.:]+/v1\?"):
        model.chat(ASKED[:1], Decoding(2))
    model.close()


def test_an_unknown_model_is_told_in_one_line(address: str) -> None:
    model = EndpointModel(Place("other", address, tries=2))
    with pytest.raises(EndpointError, match=r"other at http://127.*does not exist") as told:
        model.chat(ASKED[:1], Decoding(2))
    assert "\n" not in str(told.value)
    model.close()


def test_a_server_without_probabilities_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(faulty(lambda number: None)) as endpoint:
        model = EndpointModel(place(endpoint.url))
        with pytest.raises(ConfigError, match="gives no probabilities"):
            model.next_token_logprobs(ASKED[:2], LETTERS)
        model.close()
    request = endpoint.requests[0]
    assert (request["logprobs"], request["top_logprobs"], request["max_tokens"]) == (True, 20, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], [-math.inf] * 2),
        ([{"top_logprobs": [{"token": " A", "logprob": -2}, {"token": "A", "logprob": -1}]}],
         [math.log(math.exp(-2) + math.exp(-1)), -math.inf]),
        ([{"top_logprobs": [{"token": "▁B", "logprob": -0.5}]}], [-math.inf, -0.5]),
    ],
)  # fmt: skip
def test_probabilities_are_read_from_what_servers_tell(content: Any, expected: Any) -> None:
    choice = {"message": {"content": "A"}, "logprobs": {"content": content}}
    body = json.dumps({"choices": [choice]}).encode()
    with serving(faulty(lambda number: Fault(body=body))) as endpoint:
        model = EndpointModel(place(endpoint.url))
        [values] = model.next_token_logprobs(ASKED[:1], ["A", "B"])
        assert values == pytest.approx(expected)
        model.close()


def test_failed_requests_are_sent_again() -> None:
    faults = [Fault(429, {"retry-after": "0"}, b"{}"), Fault(500, body=b"{}"), Fault(drop=True)]
    with serving(faulty(lambda number: faults[number] if number < 3 else None)) as endpoint:
        model = EndpointModel(place(endpoint.url, tries=4))
        assert model.chat([[Message("user", "hi")]], Decoding(4)) == ["HI"]
        model.close()
    assert endpoint.counts.total() == 4


def test_many_requests_are_in_flight_and_answers_keep_their_order() -> None:
    with serving(faulty(lambda number: None, latency=0.05)) as endpoint:
        model = EndpointModel(place(endpoint.url), max_concurrency=16)
        asked = [[Message("user", f"n{number}")] for number in range(16)]
        for _ in range(3):  # the limit opens with success
            assert model.chat(asked, Decoding(4)) == [f"N{number}" for number in range(16)]
        model.close()
    assert endpoint.most_in_flight >= 4


def test_a_request_that_fails_for_good_is_no_empty_answer() -> None:
    def fault(number: int) -> Fault | None:
        return Fault(500, body=b"{}") if "bad" in str(endpoint.requests[number]) else None

    with serving(faulty(fault)) as endpoint:
        model = EndpointModel(place(endpoint.url, back_off=0.05))
        asked = [[Message("user", text)] for text in ("good", "bad")]
        with pytest.raises(EndpointError):
            model.chat(asked, Decoding(4))
        model.close()


def test_sampling_reaches_the_server_and_greedy_sends_no_seed() -> None:
    with serving(faulty(lambda number: None)) as endpoint:
        model = EndpointModel(place(endpoint.url))
        model.chat([[Message("user", "\ud800")]], Decoding(4, 0.7, 0.9, ("\n",), 3))
        model.chat([[Message("user", "x")]], Decoding(5))
        model.close()
    first, second = endpoint.requests
    assert {k: v for k, v in first.items() if k != "messages"} == {
        "model": "base", "max_tokens": 4, "temperature": 0.7, "top_p": 0.9, "seed": 3,
        "stop": ["\n"],
    }  # fmt: skip
    assert second["temperature"] == 0
    assert "seed" not in second


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    body = json.dumps({"error": {"message": "wrong key sk-very-secret"}}).encode()
    with serving(faulty(lambda number: Fault(401, body=body))) as endpoint:
        model = EndpointModel(place(endpoint.url, key_variable="MY_KEY"))
        with pytest.raises(EndpointError, match="the key") as told:
            model.chat(ASKED[:1], Decoding(2))
        assert "secret" not in str(told.value) + str(model)
        model.close()
        with pytest.raises(EndpointError) as told:
            served_models(place(endpoint.url, key_variable="MY_KEY"))
        assert "secret" not in str(told.value)
