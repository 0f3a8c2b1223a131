"""Refusals as a source: disjoint from what is evaluated, in the form of chat and of agents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dataset_builders.contamination.check import contamination
from dataset_builders.contamination.plain_texts import Text
from dataset_builders.environments import EnvironmentSpec
from dataset_builders.errors import DataError
from dataset_builders.refusals.prompts import acts
from dataset_builders.refusals.training import (
    conversation_of,
    examples,
    shipped_examples,
    write_refusals,
)
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from dataset_builders.sources.made import Refusals, read_provenance
from dataset_builders.sources.spec import SourceSpec
from evaluators.tasks.refusal.phrases import refuses_in_words
from evaluators.tasks.refusal.shipped import shipped_requests


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def request_of(prompt: str) -> str:
    """A prompt without the line that describes a table, which always reads alike."""
    return prompt.partition("\nThe table is named")[0]


def test_no_request_is_both_trained_and_evaluated() -> None:
    # Llama 2's rule, but with a span of more than 5 words instead of 10.
    report = contamination(
        [Text(each.item, request_of(each.prompt)) for each in shipped_examples()],
        [Text(each.item, request_of(each.prompt)) for each in shipped_requests()],
        longer_than=5,
        skips=2,
    )
    assert len(report.samples) == 88
    assert [each.match for each in report.samples if each.match] == []
    openings = {" ".join(words(each.prompt)[:5]) for each in shipped_requests()}
    alike = [e.prompt for e in shipped_examples() if " ".join(words(e.prompt)[:5]) in openings]
    assert alike == []


def test_the_shipped_responses_refuse_the_harmful_requests_only() -> None:
    told = {request.item: refuses_in_words(request.response) for request in shipped_examples()}
    chat = {item: says for item, says in told.items() if "-chat-" in item}
    missed = [item for item, says in chat.items() if says != ("-harmful-" in item)]
    assert missed == []
    assert len(chat) == 48


@pytest.mark.parametrize("actions", ["text", "tools"])
def test_an_agents_refusal_is_a_valid_action_that_executes_nothing(actions: str) -> None:
    settings = Refusals(setting="agent", actions=actions)  # type: ignore[arg-type]
    found = examples(settings)
    assert {each.form for each in found} == {"os", "database"}
    for request in found:
        conversation = conversation_of(request, settings.actions)
        *_, user, reply = conversation.messages
        assert user.content.endswith(request.prompt)
        assert [m.trained for m in conversation.messages].count(True) == 1
        assert reply.trained
        spec = EnvironmentSpec(request.form, options={"dialogue": actions})
        if actions == "text":
            assert spec.make().parse(reply.content) is not None
            assert not acts(request, reply.content)
            assert request.response in reply.content
        else:
            assert [call.name for call in reply.tool_calls] == [
                {"os": "answer_action", "database": "commit_final_answer"}[request.form]
            ]
            assert conversation.tools


def test_the_source_is_read_as_it_was_written(tmp_path: Path) -> None:
    settings = Refusals()
    assert write_refusals(settings, tmp_path) == 64
    read = load_source(resolve_source(str(tmp_path))).conversations
    assert [c.messages for c in read] == [
        conversation_of(request).messages for request in shipped_examples()
    ]
    provenance = read_provenance(str(tmp_path))
    assert provenance is not None
    assert provenance["kind"] == "refusals"


def test_a_set_of_ones_own_needs_responses(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("prompt,label,response\nDo harm,harmful,No.\nSay hello,harmless,Hello\n")
    found = examples(Refusals(str(file)))
    assert [(r.form, r.label, r.response) for r in found] == [
        ("chat", "harmful", "No."),
        ("chat", "harmless", "Hello"),
        ("os", "harmful", "No."),
    ]
    file.write_text("prompt,response\nDo harm,\n")
    with pytest.raises(DataError, match=r"own\.csv: 00001: response: found nothing"):
        examples(Refusals(str(file)))


def test_a_set_without_a_conversation_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("prompt,label,response\nSay hello,harmless,Hello\n")
    assert len(examples(Refusals(str(file)))) == 1
    with pytest.raises(DataError, match=r"own\.csv: found only harmless requests of an agent"):
        examples(Refusals(str(file), setting="agent"))


def test_a_source_names_it_by_a_word() -> None:
    spec = SourceSpec(refusals="own", weight=0.05)  # type: ignore[call-arg, arg-type]
    assert spec.refusals == Refusals()
    assert spec.path == "<refusals>"
