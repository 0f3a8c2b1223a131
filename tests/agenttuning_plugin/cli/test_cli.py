"""The command line as a user meets it."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agenttuning_plugin.cli import main as cli
from agenttuning_plugin.config.shipped import recipe_names

ROOT = Path(__file__).resolve().parents[3]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    def write(name: str, texts: list[str]) -> Path:
        rows = [
            {
                "id": f"{name}-{number}",
                "messages": [
                    {"role": "user", "content": "go on"},
                    {"role": "assistant", "content": text},
                ],
            }
            for number, text in enumerate(texts)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return {
        "agent": write("agent", [f"act {i}" for i in range(5)]),
        "general": write("general", [f"talk {i}" for i in range(20)]),
    }


def assert_one_line_error(result: tuple[int, str, str], *expected: str) -> None:
    code, _, err = result
    assert code == 1
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err
    for text in expected:
        assert text in err


def _all_help(app: typer.Typer, *names: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every command by its names, with the help texts in its source."""
    for command in app.registered_commands:
        assert command.callback is not None
        source = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(command.callback))))
        texts = [
            ast.literal_eval(keyword.value)
            for node in ast.walk(source)
            if isinstance(node, ast.keyword) and (keyword := node).arg == "help"
        ]
        name = command.name or command.callback.__name__.replace("_", "-")
        yield (*names, name), texts
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _all_help(group.typer_instance, *names, str(group.name))


def test_no_help_text_loses_what_is_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    found = 0
    for names, texts in _all_help(cli.app):
        shown = CliRunner().invoke(cli.app, [*names, "--help"]).output
        shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
        for text in texts:
            for part in re.findall(r"\[[^]]*\]", text):
                assert part in shown, (names, part)
                found += 1
    assert found > 10


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "build", "explain", "check", "recipe", "inspect", "evaluate", "chat"):
        assert command in out


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "build", "explain", "check", "inspect", "evaluate", "chat", "recipe copy"),
        *("env list", "env setup", "env validate"),
    ],
)
def test_every_option_has_a_help_text(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    for line in out.splitlines():
        if "--" in line and "Usage" not in line and "--help" not in line:
            words = line.strip("│ ").split("  ")
            assert len([word for word in words if word.strip()]) > 1, line


def test_the_installed_command_shows_errors_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agenttuning_plugin", "check", "nowhere.yaml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert_one_line_error((done.returncode, done.stdout, done.stderr), "nowhere.yaml")


def test_recipes_are_listed(run: Run) -> None:
    code, out, _ = run("recipe", "list")
    assert code == 0
    assert all(name in out for name in recipe_names())
    listed = json.loads(run("recipe", "list", "--json")[1])
    assert set(listed) == set(recipe_names())
    assert all(listed.values())


def test_a_recipe_is_copied_whole_and_never_over_another(run: Run, tmp_path: Path) -> None:
    assert run("recipe", "copy", "demo", tmp_path)[0] == 0
    copied = tmp_path / "demo.yaml"
    assert copied.read_bytes() == (ROOT / "recipes/demo.yaml").read_bytes()
    copied.write_text("mine")
    assert_one_line_error(run("recipe", "copy", "demo.yaml", tmp_path), "--force")
    assert copied.read_text() == "mine"
    assert run("recipe", "copy", "demo", tmp_path, "--force")[0] == 0
    assert copied.read_text() != "mine"


def test_an_unknown_recipe_is_refused(run: Run) -> None:
    assert_one_line_error(run("recipe", "copy", "agentlm-1t"), "agentlm-1t", "demo.yaml")
    assert_one_line_error(run("recipe", "copy", "../pyproject.toml"), "expected one of")


def test_build_writes_messages(run: Run, data: dict[str, Path], tmp_path: Path) -> None:
    from datasets import load_from_disk

    out = tmp_path / "mix"
    code, printed, _ = run(
        "build", "--agent", data["agent"], "--general", data["general"], "--num-examples", 50,
        "--eta", 0.4, "--seed", 3, "--out", out, "--json",
    )  # fmt: skip
    assert code == 0
    report = json.loads(printed)
    assert report["mix"]["agent_examples"] == 20
    assert report == json.loads((out / "report.json").read_text("utf-8"))
    rows = load_from_disk(str(out))
    assert [row["messages"][1]["content"][:3] for row in rows].count("act") == 20


def test_build_writes_tokens(
    run: Run, data: dict[str, Path], tiny_model_dir: Path, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    out = tmp_path / "mix"
    code, printed, _ = run(
        "build", "--agent", data["agent"], "--general", data["general"], "--num-examples", 10,
        "--length-policy", "truncate",
        "--tokenizer", tiny_model_dir, "--max-length", 128, "--out", out,
    )  # fmt: skip
    assert code == 0
    assert "share of trained tokens" in printed
    assert set(load_from_disk(str(out)).column_names) == {"input_ids", "labels", "attention_mask"}
    again = run("build", "--general", data["general"], "--num-examples", 1, "--out", out)
    assert_one_line_error(again, "exists already")


def test_build_warns_of_what_is_lost(run: Run, tmp_path: Path, tiny_model_dir: Path) -> None:
    long = {"role": "assistant", "content": "word " * 500}
    rows = [
        {"messages": [{"role": "user", "content": "q"}, long if number < 3 else {**long,
         "content": "a"}]}
        for number in range(20)
    ]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, options in (("one", ()), ("two", ("--json",))):
        code, out, err = run(
            *("build", "--agent", path, "--eta", 1, "--num-examples", 9, "--out", tmp_path / name),
            *("--tokenizer", tiny_model_dir, "--max-length", 99, "--length-policy", "drop"),
            *options,
        )
        assert code == 0
        assert "warning: agent: 3 of 20 (15%) conversations give no row: too_long 3" in err
        assert "would hold 95% of the conversations whole" in err
    (line,) = json.loads(out)["warnings"]
    assert line in err
    assert line in (tmp_path / "one/report.html").read_text()


def test_build_takes_the_plan_of_the_mix(
    run: Run, data: dict[str, Path], tiny_model_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mix"
    code, printed, _ = run(
        "build", "--agent", data["agent"], "--general", data["general"], "--num-examples", 64,
        "--tokenizer", tiny_model_dir, "--out", out, "--eta", 0.3, "--eta-unit", "trained_token",
        "--sampling", "iid", "--batch-size", 16, "--gpt4-share", 0.5, "--seed", 5, "--json",
    )  # fmt: skip
    assert code == 0
    mix = json.loads(printed)["mix"]
    assert mix["eta_unit"] == "trained_token"
    assert mix["sampling"] == "iid"
    assert mix["block"] == 16
    assert "0.5 : 0.5" in json.loads(printed)["notes"][0]
    content = json.loads((out / "manifest.json").read_text())
    assert content["order"]["mode"] == "iid"
    assert content["wanted"]["gpt4_share"] == 0.5
    weighted = ["--agent", data["agent"], "--eta", 1, "--num-examples", 8, "--out", tmp_path / "w"]
    told = run("build", *weighted, "--task-weight", "chess=2")
    assert_one_line_error(told, "task_weights.chess: no row has this label")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--eta-unit", "byte"], ["--eta-unit: found 'byte'"]),
        (["--eta", "0", "--sampling", "luck"], ["mode: found 'luck'"]),
        (["--task-weight", "db"], ["--task-weight: found 'db', expected TASK=NUMBER"]),
        (["--task-weight", "db=much"], ["--task-weight: found 'db=much'"]),
        (["--eta", "0", "--tokenizer", "{model}", "--length-policy", "x"], ["length policy"]),
        (["--eta", "1.5"], ["eta: found 1.5", "[0, 1]"]),
        (["--eta", "0.2", "--agent", "{missing}"], ["missing.jsonl", "no such file"]),
        (["--eta", "0.5"], ["eta is 0.5, but there is no agent data"]),
        (["--eta", "0", "--tokenizer", "{missing}"], ["no tokenizer"]),
        (["--eta", "0", "--max-length", "2", "--tokenizer", "{model}"], ["too_long"]),
        (["--eta", "0", "--tokenizer", "{model}", "--chat-template", "x"], ["chat template"]),
    ],
)
def test_build_tells_what_is_wrong(
    run: Run,
    data: dict[str, Path],
    tiny_model_dir: Path,
    tmp_path: Path,
    options: list[str],
    expected: list[str],
) -> None:
    places = {"missing": tmp_path / "missing.jsonl", "model": tiny_model_dir}
    filled = [option.format(**places) for option in options]
    general = ["--general", data["general"], "--num-examples", 4, "--out", tmp_path / "mix"]
    assert_one_line_error(run("build", *general, *filled), *expected)
    assert not (tmp_path / "mix").exists()


def test_inspect_marks_what_is_trained(
    run: Run, data: dict[str, Path], tiny_model_dir: Path
) -> None:
    code, out, _ = run("inspect", data["agent"], "--tokenizer", tiny_model_dir, "--index", 2)
    assert code == 0
    assert "«act 2<|im_end|>»" in out
    facts = json.loads(run("inspect", data["agent"], "--tokenizer", tiny_model_dir, "--json")[1])
    ((start, end),) = facts["trained_spans"]
    assert facts["text"][start:end] == "act 0<|im_end|>"
    assert len(facts["input_ids"]) == len(facts["labels"])
    beyond = run("inspect", data["agent"], "--tokenizer", tiny_model_dir, "--index", 5)
    assert_one_line_error(beyond, "--index: found 5, expected at most 4")


def test_chat_answers_a_prompt(run: Run, tiny_model_dir: Path) -> None:
    code, out, _ = run("chat", tiny_model_dir, "--prompt", "hello", "--max-new-tokens", 3)
    assert code == 0
    assert out


def test_chat_holds_a_dialogue(
    run: Run, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["hello", "", "again"])

    def answer(*_: object, **__: object) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("rich.console.Console.input", answer)
    code, _, _ = run("chat", tiny_model_dir, "--max-new-tokens", 2)
    assert code == 0
    assert next(lines, None) is None


def test_check_explains(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("base_model: x\nplugins: [agenttuning_plugin.NoSuchPlugin]\n")
    code, _, err = run("check", path)
    assert code == 1
    assert "broken.yaml: plugins: found ['agenttuning_plugin.NoSuchPlugin'], expected" in err
    assert "agenttuning: the section is missing" in err
    assert "Traceback" not in err
    path.write_text("a: [1\n")
    assert_one_line_error(run("check", path), "broken.yaml:2")
    path.write_text("- 1\n")
    assert_one_line_error(run("check", path), "found list")
