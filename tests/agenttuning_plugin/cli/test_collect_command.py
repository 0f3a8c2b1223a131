"""`agenttuning collect`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agenttuning_plugin.cli.main import app
from dataset_builders.errors import AgentTuningError, ConfigError, StorageError
from tests.support.endpoint import ANSWER, SELECT, Endpoint, serving

pytest.importorskip("openai")


def collect(*arguments: object) -> Result:
    given = [str(each) for each in arguments]
    return CliRunner().invoke(app, ["collect", "--env", "database", *given])


def report(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, (result.output, result.exception)
    content: dict[str, object] = json.loads(result.stdout)
    return content


def test_the_oracle_collects_and_build_takes_it(tmp_path: Path) -> None:
    out = tmp_path / "T"
    found = report(collect("--oracle", "--num-tasks", 200, "--out", out, "--json"))
    assert (found["done"], found["kept"], found["dropped"]) == (200, 200, {})
    general = tmp_path / "general.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = (json.dumps({"id": str(n), "messages": turns}) + "\n" for n in range(50))
    general.write_text("".join(lines))
    built = ["build", "--agent", str(out), "--general", str(general), "--gpt4-share", "0"]
    built += ["--out", str(tmp_path / "mix"), "--num-examples", "100", "--json"]
    done = CliRunner().invoke(app, built)
    assert done.exit_code == 0, (done.output, done.exception)
    mix = json.loads(done.stdout)
    assert '"db": 200' in json.dumps(mix) or mix["mix"]


def test_a_model_is_named_with_all_its_settings(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("m:\n  input: 1.0\n  output: 2.0\n")
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        found = report(
            collect(
                *("--model", "m", "--base-url", endpoint.url, "--out", tmp_path / "out"),
                *("--num-tasks", 5, "--temperature", 0.5, "--stop", "Obs:", "--prices", prices),
                *("--request", "min_p=0.1", "--max-cost", 5, "--filter", "max_rounds=3"),
                *("--min-reward", 0, "--max-new-tokens", 77, "--json"),
            )
        )
    assert (found["done"], found["kept"]) == (5, 5)
    assert isinstance(found["cost_per_kept"], float)
    sent = endpoint.requests[0]
    assert (sent["temperature"], sent["stop"], sent["min_p"]) == (0.5, ["Obs:"], 0.1)
    assert sent["max_tokens"] == 77
    readme = (tmp_path / "out/README.md").read_text()
    assert "Cost per kept trajectory" in readme
    assert "max_rounds=3" in readme


def test_progress_is_shown_in_plain_lines_and_a_table_at_the_end(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: SELECT)
    with serving(endpoint):
        done = collect(
            *("--model", "m", "--base-url", endpoint.url, "--out", tmp_path, "--num-tasks", 3),
            *("--episode-steps", 2),
        )
    assert done.exit_code == 0, done.output
    for name in ("done 0 of 3", "kept", "tokens", "cost", "rate", "at once"):
        assert name in done.stderr
    assert "step_limit" in done.stdout
    assert "unknown" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --model and --oracle"),
        (("--oracle", "--split", "test"), "only 'train'"),
        (("--oracle", "--num-tasks", 100_000), "expected 1 to"),
        (("--oracle", "--option", "backend"), "expected key=value"),
        (("--model", "m", "--request", "model=1"), "field of sampling"),
        (("--model", "m", "--request", "x"), "name=JSON"),
        (("--oracle", "--filter", "nonsense"), "known: "),
        (("--oracle", "--max-tokens", 0), "more than 0"),
        (("--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--max-cost", 1), "price of m"),
        (("--oracle", "--prices", "absent.yaml"), "price table"),
        (("--oracle", "--tasks", "absent.txt"), "task ids"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = collect("--out", tmp_path / "out", *arguments)
    assert isinstance(done.exception, AgentTuningError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_held_out_environment_has_no_name_here(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["collect", "--env", "scienceworld", "--oracle", "--out", str(tmp_path)]
    )
    assert "known: " in str(done.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "expected prices by model"),
        ("m: 3", "expected input"),
        ("m: {input: 1}", "output: missing"),
        ("m: {input: 1, output: -2}", "m: output: found -2"),
        ("m: {input: 1, output: 2, outptu: 3}", "outptu: unknown"),
        ("m: {input: [1", "neither YAML nor JSON"),
    ],
)
def test_a_wrong_price_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(text)
    done = collect("--oracle", "--out", tmp_path / "out", "--prices", prices)
    assert message in str(done.exception)
    assert str(prices) in str(done.exception)


def test_folders_and_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_bytes(b"\xff\xfe")
    found = collect("--oracle", "--num-tasks", 1, "--out", taken)
    assert isinstance(found.exception, StorageError)
    assert "cannot be written" in str(found.exception)
    found = collect("--oracle", "--tasks", taken, "--out", tmp_path / "out")
    assert isinstance(found.exception, ConfigError)
    assert "expected task ids" in str(found.exception)


def test_an_address_without_scheme_is_refused_at_once(tmp_path: Path) -> None:
    found = collect("--model", "m", "--base-url", "localhost:8000", "--out", tmp_path)
    assert isinstance(found.exception, ConfigError)
    assert "'localhost:8000'" in str(found.exception)


def test_a_limit_of_all_sessions_is_not_said_to_go_on_by_itself(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    with serving(endpoint):
        found = collect(
            *("--model", "m", "--base-url", endpoint.url, "--out", tmp_path / "out"),
            *("--num-tasks", 50, "--max-tokens", 1),
        )
    assert found.exit_code == 3
    assert "raise the limit to resume" in found.output


def test_an_oracle_is_not_said_to_cost(tmp_path: Path) -> None:
    found = collect("--oracle", "--num-tasks", 2, "--out", tmp_path / "out")
    assert "kept" in found.stdout
    assert "cost" not in found.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_a_text_dialogue_whose_model_calls_tools_says_so_and_fails(
    tmp_path: Path, as_json: bool
) -> None:
    function = {"name": "execute_sql", "arguments": '{"query": "SELECT 1"}'}
    call = {"id": "1", "type": "function", "function": function}
    endpoint = Endpoint(lambda messages: {"content": None, "tool_calls": [dict(call)]})
    with serving(endpoint):
        result = collect(
            *("--model", "m", "--base-url", endpoint.url, "--num-tasks", 3),
            *("--out", tmp_path / "out", *(["--json"] if as_json else [])),
        )
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "warning: 3 of 3 replies came with native tool calls, which are dropped" in said
    assert "because the dialogue is text: " in said
    assert "serve the model without a tool parser" in said


def test_a_reply_with_calls_is_no_failure_where_something_is_kept(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: {"content": ANSWER, "tool_calls": [{"id": "1"}]})
    with serving(endpoint):
        result = collect(
            *("--model", "m", "--base-url", endpoint.url, "--num-tasks", 2),
            *("--out", tmp_path / "out", "--min-reward", 0),
        )
    assert result.exit_code == 0
    assert "came with native tool calls, which are dropped" in " ".join(result.stderr.split())


def test_a_model_in_this_process_plays_and_the_command_resumes(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
    command = ["--local", "--model", tiny_model_dir, "--out", tmp_path / "out", "--num-tasks", 3]
    command += ["--min-reward", 0, "--temperature", 1.0, "--max-new-tokens", 5, "--json"]
    found = report(collect(*command))
    # A random model does not end its turns, and a truncated turn is no training data.
    assert (found["done"], found["dropped"]) == (3, {"cut_turns": 3})
    again = report(collect(*command))
    assert {**again, "session": 0} == {**found, "session": 0}
    assert again["session"] != found["session"]


@pytest.mark.parametrize(
    "options",
    [
        ["--oracle"],
        ["--base-url", "http://127.0.0.1:1/v1"],
        ["--add-thoughts"],
        ["--max-tokens", "9"],
        ["--request", "min_p=0.1"],
    ],
)
def test_options_of_a_server_are_refused_with_local(options: list[str], tmp_path: Path) -> None:
    named = [] if "--oracle" in options else ["--model", "m"]
    result = collect("--local", *named, *options, "--out", tmp_path / "out")
    assert isinstance(result.exception, ConfigError)
    assert f"--local: found with {options[0]}" in str(result.exception)
