"""`agenttuning self-replay` with a model in this process and with a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import load_source
from tests.support.endpoint import Endpoint
from tests.support.source_files import write_sides

Run = Callable[..., tuple[int, str, str]]

NUM_PROMPTS = 9


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return write_sides(tmp_path, agent=1, general=NUM_PROMPTS)["general"]


def test_a_local_model_answers_and_the_folder_is_a_source(
    run: Run, prompts: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
    out = tmp_path / "out"
    command: list[Any] = ["self-replay", "--prompts", prompts, "--model", tiny_model_dir]
    command += ["--out", out, "--max-new-tokens", 5, "--temperature", 1.0, "--filter", "empty"]
    code, shown, _ = run(*command)
    assert code == 0
    assert "answers: kept" in shown
    assert f"general: [{{path: {out}}}]" in shown
    talks = load_source(resolve_source(str(out))).conversations
    assert all(talk.messages[1].trained and talk.messages[1].content for talk in talks)
    provenance = json.loads((out / "made/provenance.json").read_text("utf-8"))
    assert set(provenance["model"]) == {"sha256", "tokenizer_sha256"}
    assert str(tmp_path) not in json.dumps(provenance)

    code, again, _ = run(*command, "--json")
    report = json.loads(again)
    assert report["spent"]["requests"] == NUM_PROMPTS
    assert report["rows"] == len(talks)
    code, _, error = run(*command, "--seed", 1)
    assert code == 1
    assert "seed: this collection was started with 0, found 1" in error
    assert "Traceback" not in error


def test_a_server_answers(run: Run, server: Endpoint, prompts: str, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="pip install 'agenttuning-plugin[collect]'")
    out = tmp_path / "out"
    command: list[Any] = ["self-replay", "--prompts", prompts, "--model", "m", "--out", out]
    command += ["--base-url", server.url, "--limit", 4, "--json"]
    code, shown, _ = run(*command, "--max-tokens", 1, "--concurrency", 1)
    assert code == 3
    assert json.loads(shown)["stopped"] == "token_limit"
    code, shown, _ = run(*command)
    assert code == 0
    assert json.loads(shown)["answers"] == {"kept": 4}
    assert max(server.counts.values()) == 1
    assert json.loads((out / "made/provenance.json").read_text("utf-8"))["model"] == {
        "endpoint": "m"
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--max-cost", 1], "--max-cost: found without --base-url, expected both"),
        (["--filter", "none", "--filter", "cut"], "--filter: found none with others"),
        (["--filter", "loops"], "filters.0: found 'loops', input should be 'refusal'"),
        (["--history", "all"], "--history: found 'all', input should be 'own' or 'recorded'"),
        (
            ["--base-url", "http://127.0.0.1:9/v1", "--chat-template", "llama-2"],
            "the server has its own",
        ),
        ([], "/no/model: no tokenizer"),
    ],
)
def test_what_cannot_work_is_one_line(
    run: Run, prompts: str, tmp_path: Path, options: list[Any], expected: str
) -> None:
    if not options:
        pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")
    command = ["self-replay", "--prompts", prompts, "--model", "/no/model", "--out", tmp_path / "o"]
    code, _, error = run(*command, *options)
    assert code == 1
    assert expected in error
    assert error.count("error:") == 1
    assert not (tmp_path / "o").exists()
