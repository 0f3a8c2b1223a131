"""The option `dialogue: tools` of the database and of the operating system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from agenttuning_plugin.config.evaluation import AgentTaskConfig, BenchmarkConfig
from dataset_builders.endpoints.answer import Answer
from dataset_builders.environments import EnvironmentSpec, load_environment
from dataset_builders.environments.base import OracleStep
from dataset_builders.environments.database.dialogue import DatabaseDialogue
from dataset_builders.environments.database.tool_dialogue import DatabaseToolDialogue
from dataset_builders.environments.dialogue import ROUND_LIMIT
from dataset_builders.environments.operating_system.dialogue import OperatingSystemDialogue
from dataset_builders.environments.operating_system.tool_dialogue import (
    OperatingSystemToolDialogue,
)
from dataset_builders.errors import ConfigError
from dataset_builders.rollouts.episode import Trajectory
from dataset_builders.rollouts.play import play
from dataset_builders.rollouts.policy import OraclePolicy, ScriptedPolicy
from dataset_builders.rollouts.validation import validate
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.tools import ToolCall, tool_names
from evaluators.tasks.agent_task import AgentTaskEvaluator
from evaluators.tasks.held_in import held_in_evaluator
from evaluators.tasks.registry import SuiteSettings
from tests.dataset_builders.environments.test_os import TASKS, write_tasks
from tests.support.boxes import needs_box

DATABASE = load_environment("database", dialogue="tools")


def sql(query: str) -> Answer:
    return Answer(tool_calls=(ToolCall("execute_sql", json.dumps({"query": query})),))


def commit(*answers: Any) -> Answer:
    return Answer(tool_calls=(ToolCall("commit_final_answer", json.dumps({"answers": answers})),))


def played(spec: EnvironmentSpec, task: str, *turns: str) -> Trajectory:
    (trajectory,) = play(spec, [task], ScriptedPolicy(turns))
    return trajectory


def test_the_default_stays_text() -> None:
    assert load_environment("database").dialogue is DatabaseDialogue
    assert load_environment("database", dialogue="text").dialogue is DatabaseDialogue
    assert load_environment("os").dialogue is OperatingSystemDialogue
    assert load_environment("os", dialogue="tools").dialogue is OperatingSystemToolDialogue
    assert load_environment("database").wording().label == "own:d73b7457"
    assert DATABASE.task_ids("train") == load_environment("database").task_ids("train")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dialogue": "calls"}, "database: dialogue: found 'calls', input should be 'text' or "),
        ({"dialogue": "tools", "prompt": "published", "agentinstruct": "x"}, "has no tool calls"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_environment("database", **options).make()


def test_an_environment_without_tools_has_no_such_option() -> None:
    with pytest.raises(ConfigError, match="webshop: option 'dialogue' is unknown"):
        load_environment("webshop", dialogue="tools").world()


def test_the_database_oracle_speaks_it() -> None:
    found = validate(DATABASE, num_tasks=10)
    assert (found.oracle, found.idle, found.failures) == (1.0, 0.0, {})
    tasks = DATABASE.task_ids("train")[:30]
    spoken = play(DATABASE, tasks, OraclePolicy())
    written = play(load_environment("database"), tasks, OraclePolicy())
    for one, other in zip(spoken, written, strict=True):
        calls = [call for message in one.messages for call in message.tool_calls]
        assert [call.name for call in calls] == ["execute_sql", "commit_final_answer"]
        assert (one.reward, one.num_rounds) == (other.reward, other.num_rounds)
        # The same thoughts, statements and results.
        assert [m.content for m in one.messages if m.role == "tool"] == [other.messages[4].content]
        (query,) = json.loads(calls[0].arguments).values()
        assert f"```sql\n{query}\n```" in other.messages[3].content
        assert other.messages[3].content.startswith(one.messages[2].content + "\nAction")
    assert tool_names(spoken[0].tools) == ["execute_sql", "commit_final_answer"]


def test_the_database_follows_agentbench_on_wrong_turns() -> None:
    task = DATABASE.task_ids("train")[0]
    values = [12, "7"]
    trajectory = played(DATABASE, task, "I wonder.", sql("SELEC 1"), commit(*values), commit("x"))
    contents = [message.content for message in trajectory.messages[3::2]]
    assert contents[0] == "Error: this turn has no tool call. Call a tool."
    assert "syntax error" in contents[1]
    assert "answers.0: 12 is not of type 'string'" in contents[2]
    assert (trajectory.exit_reason, trajectory.reward, trajectory.num_rounds) == ("answered", 0, 4)
    endless = played(DATABASE, task, sql("SELECT 1"))
    assert (endless.exit_reason, endless.num_rounds, endless.reward) == (ROUND_LIMIT, 20, 0.0)


def test_a_change_counts_only_once_it_is_committed() -> None:
    solved = play(DATABASE, DATABASE.task_ids("train")[:60], OraclePolicy())
    change = next(each for each in solved if each.details["kind"] == "insert")
    (query,) = json.loads(change.messages[2].tool_calls[0].arguments).values()
    select = [sql("SELECT 1")] * 19
    assert played(DATABASE, change.task_id, sql(query), *select).reward == 0.0
    assert played(DATABASE, change.task_id, sql(query), commit("done")).reward == 1.0


def test_a_demo_sized_run_becomes_rows_with_tools(tmp_path: Path) -> None:
    out = tmp_path / "T"
    given = ["--env", "database", "--option", "dialogue=tools", "--oracle", "--num-tasks", "200"]
    result = CliRunner().invoke(app, ["collect", *given, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["kept"], report["dropped"], report["tool_calls"]) == (200, {}, {"calls": 400})
    source = resolve_source(SourceSpec(str(out)))
    loaded = load_source(source)
    rows = list(loaded.conversations)
    assert len(rows) == 200
    assert {row.task for row in rows} == {"db"}
    roles = ["system", "user", "assistant", "tool", "assistant"]
    assert all([message.role for message in row.messages] == roles for row in rows)
    assert all([m.trained for m in row.messages] == [0, 0, 1, 0, 1] for row in rows)
    assert {row.tools for row in rows} == {rows[0].tools}
    assert tool_names(rows[0].tools) == ["execute_sql", "commit_final_answer"]
    general = tmp_path / "general.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    general.write_text(
        "".join(json.dumps({"id": str(n), "messages": turns}) + "\n" for n in range(50))
    )
    built = ["build", "--agent", str(out), "--general", str(general), "--gpt4-share", "0"]
    built += ["--out", str(tmp_path / "mix"), "--num-examples", "100", "--json"]
    done = CliRunner().invoke(app, built)
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout)["mix"]


def test_the_command_validates_it() -> None:
    given = ["env", "validate", "database", "--option", "dialogue=tools", "--num-tasks", "3"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output


def test_os_turns_are_written_and_read() -> None:
    dialogue = OperatingSystemToolDialogue(
        load_environment("os", dialogue="tools").world(), OperatingSystemToolDialogue.own_prompt()
    )
    for action in ("bash\nls -l\nwc é", "answer\n42", "finish"):
        turn = dialogue.write(OracleStep("So.", action))
        assert isinstance(turn, Answer)
        assert dialogue.parse(turn) == action
    assert tool_names(json.dumps(dialogue.schemas())) == [
        "bash_action",
        "finish_action",
        "answer_action",
    ]
    assert dialogue.feedback("", {}) == "Nothing was printed."
    assert dialogue.feedback("a", {"truncated": True}) == "a\n[the rest is left out]"
    assert dialogue.parse("ls") is None


def test_the_os_oracle_speaks_it(tmp_path: Path) -> None:
    needs_box()
    data = write_tasks(tmp_path / "tasks", TASKS[:2])
    spec = load_environment("os", dialogue="tools", data=data)
    first, second = play(spec, spec.task_ids("train"), OraclePolicy(), batch_size=1)
    assert (first.reward, second.reward) == (1.0, 1.0)
    names = [call.name for message in first.messages for call in message.tool_calls]
    assert names == ["bash_action", "answer_action"]
    assert [m.content for m in first.messages if m.role == "tool"] == ["3\n"]
    last = second.messages[-1].tool_calls[0]
    assert (last.name, json.loads(last.arguments)) == (
        "finish_action",
        {"thought": "That is done."},
    )


def test_recipes_and_benchmarks_take_the_option() -> None:
    given = {"environment": "database", "options": {"dialogue": "tools"}}
    config = AgentTaskConfig(type="agent_task", num_tasks=2, **given)  # type: ignore[arg-type]
    assert config.spec().dialogue is DatabaseToolDialogue
    assert AgentTaskEvaluator(config.spec(), num_tasks=2).about()["dialogue"] == "tools"
    BenchmarkConfig(type="benchmark", name="database", options={"dialogue": "tools"})
    settings = SuiteSettings(options={"database": {"dialogue": "tools", "tasks": "generated"}})
    evaluator = held_in_evaluator("database", settings)
    assert evaluator.about()["dialogue"] == "tools"
    with pytest.raises(ValidationError, match="found 'calls'"):
        AgentTaskConfig(type="agent_task", environment="database", options={"dialogue": "calls"})
