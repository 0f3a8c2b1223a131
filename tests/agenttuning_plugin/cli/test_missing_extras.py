"""What a user reads where an optional dependency is not installed.

Modules are hidden, so that this also runs where they are installed; `.ci/run` runs the suite
where they are not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agenttuning_plugin
from dataset_builders.errors import MissingExtraError
from dataset_builders.extras import needs_extra, require_modules

_HIDE = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(',')))\n"
_COMMAND = (
    f"{_HIDE}from agenttuning_plugin.cli.main import main; sys.argv[0] = 'agenttuning'; main()"
)
_ENDPOINT = ["--model", "m", "--base-url", "http://127.0.0.1:9/v1"]


def _run(code: str, hidden: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, hidden, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("hidden", "command", "message"),
    [
        (
            "transformers",
            ["evaluate", "--model", "{}", "--suite", "database", "--out", "{}/c"],
            "transformers {}[eval]",
        ),
        ("torch", ["chat", "{}", "--prompt", "x"], "torch {}[eval]"),
        ("transformers", ["inspect", "d.jsonl", "--tokenizer", "{}"], "transformers {}[tokenizer]"),
        ("gguf", ["demo", "--prepare"], "gguf {}[demo]"),
        ("axolotl", ["demo"], "axolotl {}[demo]"),
        ("openai", ["collect", "--env", "database", *_ENDPOINT, "--out", "{}/c"], "openai {}"),
        ("openai", ["instructions", "derive", "{}", *_ENDPOINT, "--out", "{}/c"], "openai {}"),
        ("rapidfuzz", ["instructions", "derive", "{}", "--out", "{}/c"], "rapidfuzz {}[collect]"),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else None,
)
def test_a_command_names_the_extra_and_makes_nothing(
    hidden: str,
    command: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hidden == "torch":
        pytest.importorskip("transformers")  # Else that one is named.
    if hidden == "openai" and "derive" in command:
        pytest.importorskip("rapidfuzz")  # Likewise.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # No model of an earlier demo.
    if "derive" in command:
        (tmp_path / "pairs.jsonl").write_text("", "utf-8")
    done = _run(_COMMAND, hidden, *(word.replace("{}", str(tmp_path)) for word in command))
    assert done.returncode == 1, done
    expected = message.replace("{}", "is missing: pip install 'agenttuning-plugin", 1)
    assert f"error: {expected}" in " ".join(done.stderr.split()), done
    assert "Traceback" not in done.stderr
    assert "fetching" not in done.stdout
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("hidden", "name", "extra"),
    [("transformers", "EvaluatorCallback", "eval"), ("axolotl", "AgentTuningPlugin", "axolotl")],
)
def test_a_public_name_names_the_extra(hidden: str, name: str, extra: str) -> None:
    done = _run(f"{_HIDE}from agenttuning_plugin import {name}", hidden)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        f"MissingExtraError: {hidden} is missing: pip install 'agenttuning-plugin[{extra}]'"
    )


def test_tokenizing_needs_no_torch(tmp_path: Path, small_tokenizer: object) -> None:
    small_tokenizer.save_pretrained(tmp_path / "tokenizer")  # type: ignore[attr-defined]
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (tmp_path / "d.jsonl").write_text(row, "utf-8")
    arguments = ["--agent", f"{tmp_path}/d.jsonl", "--general", f"{tmp_path}/d.jsonl", "--json"]
    arguments += ["--tokenizer", f"{tmp_path}/tokenizer", "--out", f"{tmp_path}/mix"]
    done = _run(_COMMAND, "torch", "build", *arguments, "--num-examples", "5")
    assert done.returncode == 0, done
    assert (tmp_path / "mix/dataset_info.json").is_file()


def test_a_package_too_old_for_another_is_not_called_missing() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"cannot be imported: .*HybridCache.*\[eval\]"),
        needs_extra("eval"),
    ):
        from json import HybridCache  # type: ignore[attr-defined]  # noqa: F401


def test_our_own_mistake_stays_one() -> None:
    with pytest.raises(ImportError, match="nothing_here") as caught, needs_extra("eval"):
        from dataset_builders import nothing_here  # type: ignore[attr-defined]  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_modules_are_looked_for_without_importing_them() -> None:
    require_modules(("json", "sqlite3"), "eval")
    with pytest.raises(MissingExtraError, match="no_such_module is missing"):
        require_modules(("json", "no_such_module"), "eval")


def test_version() -> None:
    done = _run(_COMMAND, "torch", "--version")
    assert done.stdout == f"agenttuning-plugin {agenttuning_plugin.__version__}\n"
