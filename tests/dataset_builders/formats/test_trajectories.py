"""Agent Data Protocol and ATIF: steps become turns by the documented tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation
from dataset_builders.errors import DataError, MissingExtraError
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import Format, SourceSpec, load_source

TASK = {"class_": "text_observation", "content": "task", "source": "user"}
SAY = {"class_": "message_action", "content": "done", "description": "thought"}
CODE = {"class_": "code_action", "language": "bash", "content": "ls", "description": "look"}
API = {"class_": "api_action", "function": "click", "kwargs": {"id": "é"}, "description": None}
OUT = {"class_": "text_observation", "content": "out", "source": "environment"}
PAGE = {"class_": "web_observation", "html": "<a>", "axtree": "tree", "url": "u",
        "image_observation": None, "viewport_size": None}  # fmt: skip


def load(tmp_path: Path, record: Any, format: Format | None = None) -> LoadResult:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]))
    return load_source(resolve_source(SourceSpec(str(path), format)))


def adp(tmp_path: Path, *items: Any, **fields: Any) -> LoadResult:
    return load(tmp_path, {"id": "os_1", "content": list(items), "details": {}, **fields}, "adp")


def told(conversation: Conversation) -> list[tuple[str, str]]:
    assert all(m.trained == (m.role == "assistant") for m in conversation.messages)
    return [(m.role, m.content) for m in conversation.messages]


def test_adp_actions_and_observations(tmp_path: Path) -> None:
    items = [TASK, CODE, OUT, SAY, TASK, PAGE, {**SAY, "description": None}]
    record = {"schema_version": "1.3.1", "id": "os_1", "content": items}
    (found,), report = load(tmp_path, {**record, "details": {"dataset": "os"}})
    assert told(found) == [
        ("user", "task"),
        ("assistant", "look\n\n```bash\nls\n```"),
        ("user", "out"),
        ("assistant", "thought\n\ndone"),
        ("user", "task\n\nu\n\ntree"),
        ("assistant", "done"),
    ]
    assert (found.id, found.source, found.task, found.where) == (
        "os_1",
        "adp",
        "os",
        "a.json: item 1",
    )
    assert report.changed == {"merged_turns": 1}
    _, report = adp(tmp_path, TASK, {**PAGE, "image_observation": {"content": "p"}}, SAY)
    assert report.changed == {"merged_turns": 1, "screenshots_left_out": 1}


def test_adp_calls_are_answered_by_id_or_place(tmp_path: Path) -> None:
    linked = [TASK, {**API, "tool_call_id": "c1"}, {**OUT, "tool_call_id": "c1"}, SAY]
    (found,), _ = adp(tmp_path, *linked)
    (call,) = found.messages[1].tool_calls
    assert (call.name, json.loads(call.arguments), call.id) == ("click", {"id": "é"}, "c1")
    assert (found.messages[2].role, found.messages[2].tool_call_id) == ("tool", "c1")
    # Older versions have no ids; their observations follow the call.
    (found,), _ = adp(tmp_path, TASK, API, {**OUT, "source": "user"}, TASK, SAY)
    assert [m.role for m in found.messages] == ["user", "assistant", "tool", "user", "assistant"]
    assert found.messages[2].tool_call_id == found.messages[1].tool_calls[0].id != ""
    # Code is no tool of a schema: its output is what the user's side says.
    code = [TASK, {**CODE, "tool_call_id": "c1"}, {**OUT, "tool_call_id": "c1"}, SAY]
    (found,), _ = adp(tmp_path, *code)
    assert [m.role for m in found.messages] == ["user", "assistant", "user", "assistant"]


def test_adp_details_of_texts(tmp_path: Path) -> None:
    fenced = {**CODE, "content": "a\n```\nb", "description": None}
    thinking = {**SAY, "reasoning_content": "hm"}
    data = {"class_": "json_observation", "content": {"k": ["é"]}, "source": "environment"}
    system = {**TASK, "source": "system"}
    html = {**PAGE, "axtree": None, "url": None}
    (found,), report = adp(tmp_path, system, TASK, fenced, data, thinking, html, SAY)
    assert told(found) == [
        ("system", "task"),
        ("user", "task"),
        ("assistant", "````bash\na\n```\nb\n````"),
        ("user", '{"k": ["é"]}'),
        ("assistant", "thought\n\ndone"),
        ("user", "<a>"),
        ("assistant", "thought\n\ndone"),
    ]
    assert found.messages[4].reasoning == "hm"
    assert report.changed == {}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([], "bad_adp 1; .*content: found list"),
        (["x"], "bad_adp 1; .*item 0: class_: found 'x', expected"),
        ([{"class_": "other"}], "bad_adp 1; .*item 0: class_: found 'other'"),
        ([{"class_": ["x"]}], "bad_adp"),
        ([TASK, {**API, "kwargs": "x"}], "bad_adp 1; .*item 1: tool_calls: arguments"),
        ([TASK, {**API, "function": None}], "bad_adp 1; .*item 1: tool_calls: name"),
        ([TASK, {**CODE, "content": 1}], "content_not_text 1; .*item 1: content: found int"),
        ([TASK, {**CODE, "language": None}], "content_not_text 1; .*item 1: language: missing"),
        ([{**TASK, "source": "agent"}, SAY], "unknown_role 1; .*item 0: source: found 'agent'"),
        ([{**TASK, "source": ["user"]}, SAY], "unknown_role"),
        ([{"class_": "image_observation", "content": "p"}, SAY], "multimodal"),
        ([{**PAGE, "html": None, "axtree": None}, SAY], "multimodal"),
        ([{"class_": "json_observation", "source": "user"}, SAY], "bad_adp 1; .*found NoneType"),
        ([TASK], "no_trained_turn"),
        ([TASK, {**SAY, "content": " ", "description": None}], "empty_turn"),
    ],
)
def test_adp_drops(tmp_path: Path, items: list[Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        adp(tmp_path, *items)


STEPS: list[dict[str, Any]] = [
    {"step_id": 1, "source": "system", "message": "s"},
    {"step_id": 2, "source": "user", "message": "task"},
    {
        "step_id": 3,
        "source": "agent",
        "message": "look",
        "tool_calls": [{"tool_call_id": "c", "function_name": "ls", "arguments": {"p": "/"}}],
        "observation": {"results": [{"source_call_id": "c", "content": "out"}]},
    },
    {"step_id": 4, "source": "agent", "message": "done", "reasoning_content": "hm"},
]
TOOL = {"type": "function", "function": {"name": "ls"}}
AGENT = {"name": "x", "version": "1", "model_name": "m", "tool_definitions": [TOOL]}


def trajectory(steps: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"schema_version": "ATIF-v1.7", "agent": AGENT, "trajectory_id": "t", "steps": steps,
            **fields}  # fmt: skip


def test_atif_steps(tmp_path: Path) -> None:
    pytest.importorskip("atif")
    (found,), report = load(tmp_path, trajectory(STEPS))
    assert [(m.role, m.content, m.trained) for m in found.messages] == [
        ("system", "s", False),
        ("user", "task", False),
        ("assistant", "look", True),
        ("tool", "out", False),
        ("assistant", "done", True),
    ]
    assert found.messages[2].tool_calls[0].id == found.messages[3].tool_call_id == "c"
    assert (found.id, found.source, found.model) == ("t", "atif", "m")
    assert found.tools == json.dumps([TOOL])
    assert found.messages[4].reasoning == "hm"
    assert report.changed == {}


def test_atif_one_pretty_printed_trajectory_a_file(tmp_path: Path) -> None:
    pytest.importorskip("atif")
    for name in ("a", "b"):
        text = json.dumps(trajectory(STEPS, trajectory_id=name), indent=2)
        (tmp_path / f"{name}.json").write_text(text)
    result = load_source(resolve_source(tmp_path))
    assert [item.id for item in result.conversations] == ["a", "b"]
    assert [item.where for item in result.conversations] == ["a.json: item 1", "b.json: item 1"]


def test_atif_steps_that_are_not_the_models_are_not_trained(tmp_path: Path) -> None:
    pytest.importorskip("atif")
    user = {"source": "user", "message": "u"}
    agent = {"source": "agent", "message": "a"}
    steps = [user, {**agent, "is_copied_context": True}, user, {**agent, "llm_call_count": 0}, user,
             {**agent, "message": ""}, user, {**agent, "model_name": "other"}]  # fmt: skip
    numbered = [{"step_id": n + 1, **step} for n, step in enumerate(steps)]
    (found,), report = load(tmp_path, trajectory(numbered))
    assert [m.trained for m in found.messages if m.role == "assistant"] == [False] * 3 + [True]
    assert found.model == ""
    assert report.changed["untrained_steps"] == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": "2"}, "bad_atif 1; .*schema_version: found '2'"),
        ({"steps": "x"}, "bad_atif 1; .*steps: Input should be a valid list"),
        ({"steps": [{**STEPS[0], "step_id": "1"}]}, r"bad_atif 1; .*steps\.0\.step_id: Input"),
        ({"steps": [{**STEPS[0], "other": 1}]}, "bad_atif 1; .*other: Extra inputs"),
        ({"agent": {**AGENT, "tool_definitions": [{}]}}, "bad_atif 1; .*tools: schema 0"),
        ({"steps": STEPS[:2]}, "no_trained_turn"),
        ({"steps": []}, "bad_atif 1; .*messages: found none"),
        (
            {
                "steps": [
                    {
                        "step_id": 1,
                        "source": "user",
                        "message": [
                            {"type": "image", "source": {"media_type": "image/png", "path": "p"}}
                        ],
                    }
                ]
            },
            "multimodal 1; .*step 1: message",
        ),
    ],
)
def test_atif_drops(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    pytest.importorskip("atif")
    with pytest.raises(DataError, match=reason):
        load(tmp_path, {**trajectory(STEPS), **change}, "atif")


def test_atif_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atif", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'agenttuning-plugin\[atif\]'"):
        load(tmp_path, trajectory(STEPS))
