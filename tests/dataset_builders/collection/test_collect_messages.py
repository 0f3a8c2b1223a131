"""What `agenttuning collect` says: where it asks, what it refuses, what it has counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agenttuning_plugin.cli.main import app
from dataset_builders.collection.filters import FILTERS
from dataset_builders.endpoints.endpoint import Endpoint as Model
from dataset_builders.environments.mind2web import made_up
from dataset_builders.errors import ConfigError, EndpointError
from tests.support.endpoint import ANSWER, Endpoint, Fault, serving

pytest.importorskip("openai")

KEY = "not-a-real-key-0123456789"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def collect(out: Path, *arguments: object) -> Result:
    return run("collect", "--env", "database", "--out", out, "--num-tasks", 3, *arguments)


def test_the_address_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = Endpoint(lambda messages: ANSWER)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert Model("m").address == "https://api.openai.com/v1"
    assert Model("m", "http://me:secret@host/v1").address == "http://host/v1"
    with serving(endpoint):
        # Where openai's client goes by itself, too.
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        done = collect(tmp_path, "--model", "m")
    assert done.exit_code == 0, done.output
    first, second = done.stderr.splitlines()[:2]
    assert first == f"endpoint m at {endpoint.url}: 3 of 3 tasks"
    assert "cost unknown" in second
    assert "0.0000" not in done.stderr


def test_errors_name_the_address_and_not_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for status in (401, 404):
        body = json.dumps({"error": {"message": f"no such key: {KEY}"}}).encode()
        endpoint = Endpoint(lambda messages: ANSWER, lambda number: Fault(status, body=body))  # noqa: B023
        with serving(endpoint):
            found = collect(tmp_path, "--model", "m", "--base-url", endpoint.url)
        assert isinstance(found.exception, EndpointError)
        text = str(found.exception)
        assert text.startswith(f"m at {endpoint.url}: HTTP {status}: ")
        assert "no such key: [the key]" in text
    found = collect(tmp_path, "--model", "m", "--base-url", endpoint.url, "--tries", 1)
    assert isinstance(found.exception, EndpointError)
    assert str(found.exception).startswith(f"m at {endpoint.url}: 1 tries")


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (("--prompt", "published"), "--prompt: published: "),
        (("--prompt", "nice"), "--prompt: found 'nice'"),
        (("--episode-steps", 0), "--episode-steps: found 0"),
        (("--episode-time", -1), "--episode-time: found -1"),
        (("--max-tokens", 0), "--max-tokens: found 0"),
        (("--min-reward", 2), "--min-reward: found 2"),
        (("--num-tasks", 10**6), "--num-tasks: found 1000000"),
        (("--option", "a=1", "--option", "a=2"), "--option: found 'a=2'"),
    ],
)
def test_settings_are_called_as_on_the_command_line(
    tmp_path: Path, arguments: tuple[object, ...], start: str
) -> None:
    found = collect(tmp_path, "--oracle", *arguments)
    assert isinstance(found.exception, ConfigError), found.output
    assert str(found.exception).startswith(start)
    if start.startswith("--prompt: published"):
        assert str(found.exception).endswith("(--agentinstruct)")


def test_an_unknown_token_field_and_an_address_are_refused(tmp_path: Path) -> None:
    found = collect(tmp_path, "--model", "m", "--token-field", "foo")
    assert str(found.exception).startswith("--token-field: found 'foo', expected max_tokens or")
    found = collect(tmp_path, "--model", "m", "--base-url", "localhost")
    assert str(found.exception).startswith("--base-url: found 'localhost'")


def test_another_value_of_a_setting_is_named_by_its_option(tmp_path: Path) -> None:
    assert collect(tmp_path, "--oracle", "--episode-steps", 5).exit_code == 0
    found = collect(tmp_path, "--oracle", "--episode-steps", 6)
    assert "database.sqlite: --episode-steps: this collection was started with 5" in str(
        found.exception
    )


def test_every_filter_is_named_in_help_and_docs() -> None:
    text = (Path(__file__).parents[3] / "docs/guides/collect.md").read_text("utf-8")
    shown = "".join(CliRunner(env={"COLUMNS": "200"}).invoke(app, ["collect", "--help"]).stdout)
    for name in FILTERS:
        assert name in shown
        assert f"| `{name}" in text


def test_tasks_and_attempts_are_counted_apart(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda messages: "Action: Answer\nFinal Answer: []")
    with serving(endpoint):
        done = collect(
            *(tmp_path, "--model", "m", "--base-url", endpoint.url),
            *("--attempts", 3, "--sampling-seed", 1, "--json"),
        )
    found = json.loads(done.stdout)
    assert (found["done"], found["kept"], found["attempts"]) == (3, 0, 9)
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "| Tasks played | 3 |" in readme
    assert "| Attempts played | 9 |" in readme
    assert "| Tokens read |" in readme


def test_an_oracle_has_neither_tokens_nor_cost(tmp_path: Path) -> None:
    done = collect(tmp_path, "--oracle")
    readme = (tmp_path / "README.md").read_text("utf-8").lower()
    for word in ("token", "cost", "request"):
        assert word not in done.output
        assert word not in readme
    assert json.loads((tmp_path / "card/db.json").read_text())["cost"] is None


def test_foreign_data_are_not_mixed_with_what_is_collected(tmp_path: Path) -> None:
    assert collect(tmp_path, "--oracle").exit_code == 0
    assert collect(tmp_path, "--oracle").exit_code == 0
    foreign = tmp_path / "data/db-00001-of-00002.parquet"
    foreign.write_bytes(b"PAR1")
    found = collect(tmp_path, "--oracle")
    assert isinstance(found.exception, ConfigError)
    assert str(found.exception).startswith(f"{foreign}: ")
    foreign.unlink()
    (tmp_path / "card/db.json").unlink()
    # Killed between its table and its card, a collection is still its own.
    assert collect(tmp_path, "--oracle").exit_code == 0
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "data/db-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert isinstance(collect(other, "--oracle").exception, ConfigError)
    assert not (other / "collection").exists()


def test_made_up_pages_are_collected_only_where_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made_up.write(tmp_path / "data/mind2web")
    command = ("collect", "--env", "mind2web", "--oracle", "--num-tasks", 2)
    command += ("--data", tmp_path / "data/mind2web", "--out", tmp_path / "T")
    found = run(*command)
    assert isinstance(found.exception, ConfigError)
    assert "only made-up pages" in str(found.exception)
    assert "docs/tasks/held-in/mind2web.md" in str(found.exception)
    assert not list((tmp_path / "T").rglob("*.parquet"))
    assert run(*command, "--option", "made_up=true").exit_code == 0
    readme = (tmp_path / "T/README.md").read_text("utf-8")
    assert "| Data | made-up pages, for trying things out only |" in readme
    listed = run("env", "list", "--data", tmp_path / "data").stdout
    assert "ready (made-up pages only)" in " ".join(listed.split())
