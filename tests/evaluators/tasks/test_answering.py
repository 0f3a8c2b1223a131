"""Single questions on a server: none waits for another's answer, and the results stay the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.endpoints.endpoint import Endpoint as Place
from dataset_builders.errors import EndpointError
from dataset_builders.sandbox import engines
from evaluators.evaluator import EvalResult, EvalTarget, Evaluator
from evaluators.models.answering import answer_items
from evaluators.models.endpoint import EndpointModel
from evaluators.runner import run_evaluator
from evaluators.tasks.general.gsm8k import make as make_gsm8k
from evaluators.tasks.general.human_eval import HumanEvalEvaluator, Sampling
from evaluators.tasks.general.mmlu import make as make_mmlu
from evaluators.tasks.general.mt_bench import make as make_mt_bench
from evaluators.tasks.held_out.rewoo import make as make_rewoo
from evaluators.tasks.registry import SuiteSettings
from tests.evaluators.models.test_endpoint_refusals import TOP, letters, solved
from tests.evaluators.tasks.general.test_gsm8k import folder as gsm8k_folder
from tests.evaluators.tasks.general.test_mmlu import archive
from tests.evaluators.tasks.general.test_mt_bench import folder as mt_bench_folder
from tests.evaluators.tasks.held_out.test_rewoo import PLAN
from tests.evaluators.tasks.held_out.test_rewoo import folder as rewoo_folder
from tests.support.endpoint import Endpoint, Fault, Messages, serving

__all__ = ["mt_bench_folder", "rewoo_folder"]

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

SIZE = 4
LATEST = 30.0
"""Seconds after which a held answer is sent all the same, and the test fails."""


class Hold:
    """Holds the answers to requests with some words until all other items are finished."""

    def __init__(self, words: str) -> None:
        self.words, self.released, self.late = words, False, False
        self._until = time.monotonic() + LATEST

    def __call__(self, messages: Messages) -> bool:
        if self.released or self.late or self.words not in messages[-1]["content"]:
            return False
        self.late = time.monotonic() > self._until
        return not self.late

    def progress(self, finished: int, items: int) -> None:
        self.released = self.released or finished == items - 1


class InBatches:
    """A served model without `in_flight_limit`, which is asked in batches."""

    def __init__(self, model: EndpointModel) -> None:
        self.for_task = model.for_task


def measured(evaluator: Evaluator, url: str, hold: Hold | None) -> EvalResult:
    model = EndpointModel(Place("m", url, tries=3, back_off=0.01, timeout=60.0))
    server: Any = InBatches(model) if hold is None else model
    try:
        return run_evaluator(
            evaluator,
            EvalTarget(model=None, tokenizer=None, server=server),
            on_progress=hold.progress if hold else None,
        )
    finally:
        model.close()


def of(suite: str, data: Path, **more: Any) -> SuiteSettings:
    return SuiteSettings(options={suite: {"data": str(data)}}, batch_size=SIZE, **more)


def compare(make: Any, endpoint: Endpoint, words: str) -> EvalResult:
    """The held answer is the last to come; the records are those of batches."""
    with serving(endpoint):
        expected = measured(make(endpoint.url), endpoint.url, None)
        endpoint.hold = hold = Hold(words)
        asked = len(endpoint.requests)
        found = measured(make(endpoint.url), endpoint.url, hold)
        assert len(endpoint.requests) == 2 * asked
    assert hold.released
    assert not hold.late
    assert found.records == expected.records
    assert found.metrics == expected.metrics
    assert found.num_errors == 0
    return found


def test_gsm8k_waits_for_no_slow_answer(tmp_path: Path) -> None:
    settings = of("gsm8k", gsm8k_folder(tmp_path, 12))
    endpoint = Endpoint(solved)
    found = compare(lambda url: make_gsm8k("gsm8k", settings), endpoint, "There are 5 apples")
    assert found.metrics["accuracy"].value == 1.0
    assert 2 <= endpoint.most_in_flight <= SIZE


def test_mmlu_waits_for_no_slow_answer(tmp_path: Path) -> None:
    archive(tmp_path)
    body = letters(TOP, prompt_tokens=30, completion_tokens=1)
    endpoint = Endpoint(lambda m: "", lambda n: Fault(body=body))
    settings = of("mmlu", tmp_path)
    compare(lambda url: make_mmlu("mmlu", settings), endpoint, "test 3: which is letter 3, of tea")


def rated(messages: Messages) -> str:
    asked = messages[-1]["content"]
    return "Rating: [[7]]" if asked[:2] in ("T1", "T2", "M1", "M2") else f"<{asked}>"


@pytest.mark.parametrize("words", ["First stem 0?", "T2 First stem 0?"])
def test_mt_bench_waits_for_no_slow_answer_and_no_slow_verdict(
    words: str, mt_bench_folder: Path
) -> None:
    def make(url: str) -> Evaluator:
        judge = {"base_url": url, "model": "judge"}
        return make_mt_bench("mt_bench", of("mt_bench", mt_bench_folder, judge=judge))

    compare(make, Endpoint(rated), words)


def test_rewoo_waits_for_no_slow_answer(rewoo_folder: Path) -> None:
    def reply(messages: Messages) -> str:
        return PLAN if messages[-1]["content"].startswith("Make a plan") else "3 Yes."

    settings = SuiteSettings(data=str(rewoo_folder), batch_size=SIZE)
    compare(lambda url: make_rewoo("rewoo", settings), Endpoint(reply), "is 2 even?")


def test_human_eval_waits_for_no_slow_answer() -> None:
    if reason := engines.missing():
        pytest.skip(f"no box: {reason}")
    tasks = [
        {
            "task_id": f"T/{n}",
            "prompt": f'def add_{n}(x):\n    """Add {n} to x."""\n',
            "entry_point": f"add_{n}",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        }
        for n in range(6)
    ]

    def reply(messages: Messages) -> str:
        number = messages[-1]["content"].partition("def add_")[2].partition("(")[0]
        return f"```python\ndef add_{number}(x):\n    return x + {min(int(number), 3)}\n```"

    def make(url: str) -> Evaluator:
        return HumanEvalEvaluator(tasks, Sampling(samples=2), 8, SIZE)

    found = compare(make, Endpoint(reply), "def add_1(")
    assert found.metrics["pass@1"].value == pytest.approx(4 / 6)


def test_an_endpoint_that_fails_ends_the_evaluation(tmp_path: Path) -> None:
    settings = of("gsm8k", gsm8k_folder(tmp_path, 12))
    down = Fault(status=401, body=b"{}")
    with (
        serving(Endpoint(solved, lambda number: down if number > 5 else None)) as endpoint,
        pytest.raises(EndpointError, match="401"),
    ):
        measured(make_gsm8k("gsm8k", settings), endpoint.url, Hold("nothing"))
    assert len(endpoint.requests) < 12


def test_a_model_in_this_process_answers_batches_in_order() -> None:
    asked: list[list[str]] = []
    taken: list[tuple[str, str]] = []

    def answer(batch: Sequence[str]) -> list[str]:
        asked.append(list(batch))
        return [item.upper() for item in batch]

    items = list("abcde")
    answer_items(EvalTarget(None, None), items, 2, answer, lambda *told: taken.append(told))
    assert asked == [["a", "b"], ["c", "d"], ["e"]]
    assert taken == [(item, item.upper()) for item in items]
