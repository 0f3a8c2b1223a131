"""`agenttuning evaluate` as a user meets it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.cli.evaluate import options_by_task
from dataset_builders.environments.alfworld.engine import missing_packages
from dataset_builders.errors import ConfigError
from evaluators.tasks.registry import BENCHMARKS
from tests.support.endpoint import Endpoint, serving

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("no_data")


Command = Callable[..., tuple[int, str, str]]

MISSING = {
    task.name
    for task in BENCHMARKS
    if importlib.util.find_spec(task.place.partition(":")[0]) is None
}
"""Tasks whose module is not in this tree yet: a fault, not a reason."""


def on(server: Endpoint, out: Path, *more: object, limit: int = 2) -> list[object]:
    return [
        *("evaluate", "--model", server.url, "--model-name", "m", "--suite", "database"),
        *("--batch-size", 1, "--limit", limit, "--out", out, *more),
    ]


def finished(out: Path, task: str = "database") -> list[bytes]:
    """Lines of finished records, without the heading and a line half written."""
    path = out / "transcripts" / f"{task}.jsonl"
    return path.read_bytes().split(b"\n")[1:-1] if path.exists() else []


def rows(out: Path) -> dict[str, dict[str, Any]]:
    lines = (out / "evaluations.jsonl").read_text("utf-8").splitlines()
    found = {row["evaluator"]: row for row in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


def assert_one_line_error(result: tuple[int, str, str], *expected: str) -> None:
    code, _, err = result
    lines = [line for line in err.strip().splitlines() if line.strip()]
    assert code == 1
    assert lines[-1].startswith("error: "), err
    assert "Traceback" not in err
    for text in expected:
        assert text in lines[-1]


def assert_every_task_has_a_row(code: int, told: dict[str, Any], measured: set[str]) -> None:
    by_name = {row["name"]: row for row in told["tasks"]}
    assert list(by_name) == [task.name for task in BENCHMARKS]
    assert {name for name, row in by_name.items() if row["metrics"]} >= measured
    for name, row in by_name.items():
        assert bool(row["metrics"]) != bool(row["reason"]), name
        assert "\n" not in row["reason"]
        broken = row["reason"].startswith(("ModuleNotFoundError", "ImportError"))
        assert broken == (name in MISSING), row
    assert code == int(bool(MISSING))


def test_the_panel_without_any_data(run: Command, tiny_model_dir: Path) -> None:
    code, out, err = run(
        "evaluate", "--model", tiny_model_dir, "--suite", "held-in,held-out,general",
        "--limit", 2, "--max-new-tokens", 8, "--json",
    )  # fmt: skip
    assert_every_task_has_a_row(code, json.loads(out), {"database", "card_game"})
    assert "Traceback" not in err


@pytest.mark.slow
def test_the_panel_with_data(run: Command, tiny_model_dir: Path, shared: Path) -> None:
    code, out, err = run(
        "evaluate", "--model", tiny_model_dir, "--suite", "held-in,held-out,general",
        "--limit", 2, "--data", shared / "data", "--max-new-tokens", 16, "--json",
    )  # fmt: skip
    measured = {"webshop", "database", "hotpot_qa", "card_game", "mmlu", "gsm8k"}
    if not missing_packages():  # Data alone do not do: the games need the extra.
        measured.add("alfworld")
    assert_every_task_has_a_row(code, json.loads(out), measured)
    assert "Traceback" not in err


def test_the_table_has_scores_reasons_and_no_bars(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    code, out, err = run(*on(server, tmp_path, "--suite", "mt_bench"))
    assert code == 0
    assert "database: 2 of 2" in err.splitlines()
    lines = out.splitlines()
    assert any("Database" in line and "2" in line for line in lines)
    assert any("MT-Bench" in line and "not measured" in line for line in lines)
    assert any(line.startswith("MT-Bench: needs a judge") for line in lines)
    assert "Overall" not in out  # Neither suite is whole.


def test_nothing_measured_is_no_success(run: Command, server: Endpoint, tmp_path: Path) -> None:
    given = on(server, tmp_path)
    code, out, err = run(*("mt_bench" if each == "database" else each for each in given))
    assert code == 1
    assert "MT-Bench: needs a judge" in out
    assert err.splitlines()[-1] == "nothing was measured"


def test_a_wrong_setting_of_a_task_is_no_success(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    given = on(server, tmp_path, "--suite", "gsm8k", "--option", "gsm8k.shotz=2")
    code, out, err = run(*given)
    assert code == 1
    assert "GSM8K: option 'shotz' is unknown" in " ".join(out.split())
    assert "not measured as specified: gsm8k" in err


def test_variables_of_the_chat_template_are_sent(
    run: Command, server: Endpoint, tmp_path: Path
) -> None:
    given = ("--chat-template-kwargs", "enable_thinking=false", "--request", "top_k=1")
    code, _, err = run(*on(server, tmp_path, *given))
    assert code == 0, err
    sent = [request for request in server.requests if "messages" in request]
    assert sent
    assert all(
        (each["chat_template_kwargs"], each["top_k"]) == ({"enable_thinking": False}, 1)
        for each in sent
    )


def test_json_is_for_machines(run: Command, server: Endpoint, tmp_path: Path) -> None:
    code, out, _ = run(*on(server, tmp_path, "--json"))
    assert code == 0
    told = json.loads(out)
    (row,) = told["tasks"]
    assert (told["limit"], row["name"], row["suite"]) == (2, "database", "held-in")
    assert row["metrics"][row["primary"]]["n"] == 2
    assert rows(tmp_path)["database"]["num_errors"] == 0
    assert all("messages" not in record for record in rows(tmp_path)["database"]["records"])
    assert all(b'"messages"' in line for line in finished(tmp_path))


def test_the_loss_on_chat_is_measured(run: Command, tiny_model_dir: Path, tmp_path: Path) -> None:
    chat = tmp_path / "general.jsonl"
    talks = [
        {"messages": [{"role": "user", "content": "go on"}, {"role": "assistant", "content": t}]}
        for t in map("talk {}".format, range(8))
    ]
    chat.write_text("".join(json.dumps({"id": str(i), **t}) + "\n" for i, t in enumerate(talks)))
    code, out, _ = run(
        "evaluate", tiny_model_dir, "--suite", "loss", "--general", chat,
        "--num-conversations", 3, "--json",
    )  # fmt: skip
    assert code == 0
    (row,) = json.loads(out)["tasks"]
    assert row["metrics"]["loss"]["value"] > 0
    assert row["metrics"]["loss"]["n"] == 3
    told = json.loads(run("evaluate", tiny_model_dir, "--suite", "loss,replay", "--json")[1])
    assert [row["reason"] for row in told["tasks"]] == [
        "replay: --replay-data is missing, expected trajectories",
        "loss: --general is missing, expected chat data",
    ]


def test_the_oracle_plays_without_a_model(run: Command) -> None:
    code, out, _ = run(
        "evaluate", "--oracle", "--suite", "database,mt_bench", "--limit", 2, "--json"
    )
    assert code == 0
    by_name = {row["name"]: row for row in json.loads(out)["tasks"]}
    assert by_name["database"]["metrics"]["success"]["value"] == 1.0
    assert by_name["database"]["about"]["player"] == "oracle"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--model: found 0 models"]),
        (["a", "--model", "b"], ["found 2 models"]),
        (["a", "--oracle"], ["both an oracle and a model"]),
        (["a", "--suite", "held-in,chess"], ["--suite: found 'chess'", "database", "replay"]),
        (["a", "--suite", ","], ["--suite: found no name"]),
        (["a", "--option", "backend=x"], ["'backend' for 6 tasks", "database.backend="]),
        (["a", "--option", "gsm8k.shots=1"], ["'gsm8k.shots'", "alfworld"]),
        (["{tmp}/nowhere", "--suite", "database"], ["nowhere: no such folder"]),
        (["{tmp}", "--suite", "database"], ["cannot be loaded"]),
        (["http://127.0.0.1:9/v1", "--suite", "database"], ["no list of models"]),
        (["http://127.0.0.1:9/v1", "--adapter", "x", "--suite", "database"], ["with a URL"]),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    run: Command, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    filled = [text.format(tmp=tmp_path) for text in arguments]
    assert_one_line_error(run("evaluate", *filled), *expected)


def test_options_reach_their_task() -> None:
    assert options_by_task(["shots=3"], ["gsm8k"]) == {"gsm8k": {"shots": 3}}
    assert options_by_task(["shots=3"], ["gsm8k", "replay"]) == {"gsm8k": {"shots": 3}}
    assert options_by_task(["mmlu.shots=0", "gsm8k.shots=1"], ["general"]) == {
        "mmlu": {"shots": 0},
        "gsm8k": {"shots": 1},
    }
    with pytest.raises(ConfigError, match="expected a task of mmlu"):
        options_by_task(["chess.x=1"], ["mmlu"])


@pytest.mark.parametrize("option", ["--adapter", "--chat-template", "--end-of-turn"])
def test_what_only_a_server_can_heed_is_refused_beside_its_url(run: Command, option: str) -> None:
    for command in ("evaluate", "chat"):
        given = (command, "http://127.0.0.1:9/v1", option, "llama-2", "--model-name", "m")
        code, out, err = run(*given)
        assert code == 1
        assert f"{option}: found one with a URL" in out + err
        assert "Traceback" not in err


def test_loss_on_a_server_says_that_it_needs_weights(run: Command, tmp_path: Path) -> None:
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat.write_text(json.dumps({"messages": turns}) + "\n", "utf-8")
    with serving(Endpoint(reply=lambda messages: "hm")) as endpoint:
        code, out, err = run(
            *("evaluate", endpoint.url, "--model-name", "m"),
            *("--suite", "loss", "--general", chat),
        )
    assert code == 1
    told = " ".join((out + err).split())
    assert "loss: needs the model's weights, not a server's answers" in told
    assert "chat template" not in told


def test_chat_talks_to_a_server(run: Command) -> None:
    endpoint = Endpoint(reply=lambda messages: f"{len(messages)} turns")
    with serving(endpoint):
        code, out, _ = run("chat", endpoint.url, "--model-name", "m", "--prompt", "hi")
    assert (code, out.strip()) == (0, "1 turns")
