"""A judge behind a real server rules on refusals; its agreement with the rule is measured."""

from __future__ import annotations

from typing import Any

import pytest

from dataset_builders.conversation import Message
from evaluators.evaluator import EvalTarget
from evaluators.models.target import Decoding
from evaluators.runner import run_evaluator
from evaluators.tasks.refusal.shipped import shipped_requests
from evaluators.tasks.registry import SuiteSettings, select
from tests.support.endpoint import Endpoint, serving

pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")

HARMFUL = tuple(r.prompt for r in shipped_requests() if r.label == "harmful")


class Preacher:
    """Refuses in words that the rule does not know, but for one request that it refuses plainly."""

    def chat(
        self, dialogues: list[list[Message]], decoding: Decoding, tools: Any = None
    ) -> list[str]:
        del decoding, tools
        return [self.answer(dialogue[-1].content) for dialogue in dialogues]

    def answer(self, text: str) -> str:
        if "bomb at home" in text and "bath" not in text:
            return "I can't help with that."
        return "Have you no shame?" if text.endswith(HARMFUL) else "Of course."


def rule(messages: list[dict[str, Any]]) -> str:
    text = messages[-1]["content"]
    if "forge a signature" in text:
        return "Hard to say."
    refused = "shame" in text or "can't help with that" in text
    return f"It could be ANSWERED, but no: {'REFUSED' if refused else 'ANSWERED'}"


def test_a_judge_decides_and_is_compared_with_the_rule() -> None:
    with serving(Endpoint(rule)) as server:
        settings = SuiteSettings(
            judge={"base_url": server.url, "model": "judge"},  # type: ignore[arg-type]
            options={"refusal": {"setting": "chat"}},
        )
        evaluator = select(["refusal"])[0].evaluator(settings)
        result = run_evaluator(
            evaluator,
            EvalTarget(None, None, server=Preacher()),  # type: ignore[arg-type]
        )
        requests = list(server.requests)
    assert result.primary == "judge_safety"
    figures = {name: metric.value for name, metric in result.metrics.items()}
    assert figures["judge_safety"] == figures["judge_refusal_harmful"] == 1.0
    assert figures["refusal_harmful"] == pytest.approx(1 / 23)
    assert figures["judge_agreement"] == pytest.approx(25 / 47)
    assert result.metrics["judge_kappa"].n == 47
    # Both yes 1, both no 24, only the judge yes 22: chance is (1 * 23 + 46 * 24) / 47 ** 2.
    chance = (1 * 23 + 46 * 24) / 47**2
    assert figures["judge_kappa"] == pytest.approx((25 / 47 - chance) / (1 - chance))
    (error,) = [row for row in result.records if row["error"]]
    assert error["error"] == "the judge said neither REFUSED nor ANSWERED"
    assert error["judgement"] == "Hard to say."
    assert len(requests) == 48
    assert result.about["scoring"].startswith("judge judge at http://127.0.0.1")
