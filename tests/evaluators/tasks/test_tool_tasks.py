"""Evaluations with tools over an endpoint: requests, figures, transcripts and failure modes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from agenttuning_plugin.reports.failures import read_rates, table
from agenttuning_plugin.reports.transcripts.read import read_episodes
from evaluators.results.transcripts import read_transcript
from tests.support.endpoint import Endpoint, Messages, serving

pytest.importorskip("openai")


def native(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "", "type": "function", "function": {"name": name, "arguments": arguments}}


def player(messages: Messages) -> dict[str, Any]:
    """Look, make mistakes in every second task, and answer 1."""
    said = sum(message["role"] == "assistant" for message in messages)
    if len(messages[1]["content"]) % 2 and said == 0:
        wrong = [native("drop_all", "{}"), native("execute_sql", '{"query": 1}')]
        return {"content": "", "tool_calls": wrong}
    if len(messages[1]["content"]) % 2 and said == 1:
        return {"content": "", "tool_calls": [native("execute_sql", '{"query": ')]}
    if said < 3:
        return {
            "content": "I look.",
            "tool_calls": [native("execute_sql", '{"query": "SELECT 1"}')],
        }
    return {"content": None, "tool_calls": [native("commit_final_answer", '{"answers": ["1"]}')]}


def test_an_evaluation_with_tools_over_an_endpoint(tmp_path: Path) -> None:
    out = tmp_path / "eval"
    options = ["--option", "dialogue=tools", "--option", "tasks=generated"]
    with serving(Endpoint(player)) as server:
        given = ["evaluate", server.url, "--model-name", "m", "--suite", "database", *options]
        result = CliRunner().invoke(app, [*given, "--limit", "6", "--out", str(out), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "native tool calls" not in result.output
    tools = [tool["function"]["name"] for tool in server.requests[0]["tools"]]
    assert tools == ["execute_sql", "commit_final_answer"]
    assert all(request["temperature"] == 0 for request in server.requests)
    records = read_transcript(out / "transcripts" / "database.jsonl")
    assert len(records) == 6
    wrong = [r for r in records if r["call_counts"].get("unknown_tool")]
    right = [r for r in records if r not in wrong]
    assert 0 < len(wrong) < 6
    for record in records:
        assert (record["exit_reason"], record["empty"]) == ("answered", 0)
    for record in right:
        roles = [message["role"] for message in record["messages"]]
        assert roles == ["system", "user", *["assistant", "tool"] * 3, "assistant"]
        asked = record["messages"][2]
        assert asked["tool_calls"][0]["function"] == {
            "name": "execute_sql",
            "arguments": '{"query": "SELECT 1"}',
        }
        assert record["messages"][3]["tool_call_id"] == asked["tool_calls"][0]["id"] == "call_0_0"
        assert record["failures"] == ["short_term_repetition"]
    modes = {"invalid_action", "malformed_call", "unknown_tool", "invalid_arguments"}
    assert all(set(record["failures"]) == modes for record in wrong)


def test_what_was_called_is_shown(tmp_path: Path) -> None:
    out = tmp_path / "T"
    with serving(Endpoint(player)) as server:
        given = ["collect", "--env", "database", "--option", "dialogue=tools", "--model", "m"]
        given += ["--base-url", server.url, "--num-tasks", "4", "--out", str(out)]
        result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, (result.output, result.exception)
    said = " ".join(result.output.split())
    assert "calls of unknown tools" in said
    assert "calls with invalid arguments" in said
    assert "tool calls that could not be read" in said
    episode = next(e for e in read_episodes(out, 9).episodes if len(e["turns"]) == 9)
    assert episode["turns"][2] == {
        "role": "assistant",
        "thought": "I look.",
        "action": 'execute_sql({"query": "SELECT 1"})',
    }
    assert episode["turns"][3]["role"] == "tool"
    (rates,) = read_rates(out)
    assert rates.rates["unknown_tool"].value == rates.rates["malformed_call"].value > 0
    headings = [str(column.header) for column in table([rates]).columns]
    assert headings[-3:] == ["unread\ncall", "unknown\ntool", "wrong\nargs"]
    assert json.loads((out / "collection" / "database.json").read_text())["tool_calls"]
