"""Errors of lower layers name settings; the command line names its options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agenttuning_plugin.cli.common import command_of, name_options, options_of
from agenttuning_plugin.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
OURS = re.compile(
    r"(?<![\w-])--(?:out|data|option|prompt|agentinstruct|judge-model|num-tasks|adapter|model-name|"
    r"general|replay-data|prices)\b"
)


@pytest.mark.parametrize(
    ("argv", "text", "expected"),
    [
        (["collect", "--env", "os"], "name another `out`", "name another --out"),
        (["env", "validate", "os"], "its folder (`data`)", "its folder (--data)"),
        (["collect"], "`made_up` and `key_variable`", "`made_up` and --key-variable"),
        (["collect"], "num_tasks: found 0", "--num-tasks: found 0"),
        (["evaluate"], "a: adapter: found 0 (`limit`)", "a: --adapter: found 0 (--limit)"),
        (["recipe", "list"], "name another `out`", "name another `out`"),
        ([], "name another `out`", "name another `out`"),
    ],
)
def test_a_setting_becomes_the_commands_option(argv: list[str], text: str, expected: str) -> None:
    command = command_of(app)
    for word in argv:
        command = getattr(command, "commands", {}).get(word, command)
    assert name_options(text, options_of(command), leading=True) == expected


def messages(source: str) -> list[str]:
    """Texts of a module but its docstrings."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [c.value for c in constants if isinstance(c.value, str) and id(c) not in docs]


def test_lower_layers_name_no_options_of_the_command_line() -> None:
    files = [
        file
        for each in ("dataset_builders", "evaluators", "agenttuning_plugin/evaluation")
        for file in (ROOT / each).rglob("*.py")
    ]
    found = [
        (file.name, text)
        for file in files
        for text in messages(file.read_text("utf-8"))
        if OURS.search(text)
    ]
    assert not found
    assert OURS.search(messages('raise ValueError(f"name another --out {x}")')[0])
