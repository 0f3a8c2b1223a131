"""Rounds end to end: a tiny model, TRL, and an environment that rewards what it seldom says."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.config.evaluation import AgentTaskConfig
from agenttuning_plugin.rounds import collecting
from agenttuning_plugin.rounds.collecting import Collection, collect_round
from agenttuning_plugin.rounds.loop import RoundsResult
from agenttuning_plugin.rounds.settings import RoundsConfig
from dataset_builders.errors import ConfigError
from tests.support.yes_rounds import play, write_rounds

SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture(scope="module")
def ended(
    tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], RoundsResult, list[str]]:
    """Folder, section, result and lines of rounds that were left alone."""
    folder = tmp_path_factory.mktemp("rounds")
    section, said = write_rounds(folder), list[str]()
    result = play(section, tiny_model_dir, folder / "out", said.append)
    return folder / "out", section, result, said


def test_the_model_learns_from_its_own_successes(ended: Any) -> None:
    out, _, result, _ = ended
    state = json.loads((out / "state.json").read_text("utf-8"))
    assert state["start"]["measure"]["figures"]["agree"]["value"] == 0.0
    first, second = state["rounds"]
    assert first["collect"]["kept"] >= 4
    assert first["collect"]["tasks"] == 12
    assert first["train"]["figures"]["agree"]["value"] == 1.0
    assert first["decide"]["accepted"]
    assert first["decide"]["p_value"] == pytest.approx(2**-8)
    assert len(first["decide"]["learned"]) == 8
    assert not first["decide"]["lost"]
    assert {row["evaluator"] for row in first["decide"]["changes"]} == {"agree", "general"}
    # All tasks succeed already, so no further round can be better.
    assert not second["decide"]["accepted"]
    assert "did not rise significantly" in second["decide"]["reasons"][0]
    assert result.accepted == 1
    assert result.stopped.startswith("round 2: refused")
    assert result.best.resolve() == (out / "round-1/model").resolve()


def test_each_round_plays_with_the_last_model_and_another_seed(ended: Any) -> None:
    out, _, result, _ = ended
    first, second = (each["collect"] for each in result.rounds)
    assert first["seed"] != second["seed"]
    assert first["model"] == str(out / "round-0/model")
    assert second["model"] == str(out / "round-1/model")
    assert second["kept_at_first_attempt"] > first["kept_at_first_attempt"]


def test_the_page_shows_scores_yield_and_transcripts(ended: Any) -> None:
    out = ended[0]
    page = (out / "rounds.html").read_text("utf-8")
    assert '<th scope="row">base</th>' in page
    assert "0.000 [0.000" in page
    assert "1.000 [0.6" in page
    assert "accepted, best" in page
    assert "Learned: tasks that succeed now and did not before: 8" in page
    for link in ("round-1/collected.html", "round-1/evaluated.html"):
        assert f'href="{link}"' in page
        assert "agree-" in (out / link).read_text("utf-8")


def test_rounds_that_have_ended_are_not_repeated(ended: Any, tiny_model_dir: Path) -> None:
    out, section, result, _ = ended
    said: list[str] = []
    again = play(section, tiny_model_dir, out, said.append)
    assert again == result
    assert [line.partition(":")[0] for line in said] == ["round 1", "round 2"]
    with pytest.raises(ConfigError, match=r"state\.json: temperature: .* 1\.0, found 0\.5"):
        play(section, tiny_model_dir, out, temperature=0.5)
    with pytest.raises(ConfigError, match=r"recipe\.learning_rate: .* None, found 0\.001"):
        play(section, tiny_model_dir, out, training={"recipe.learning_rate": 1e-3})


def test_a_start_without_general_loss_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    section = write_rounds(tmp_path)
    with pytest.raises(ConfigError, match="found no evaluation of general, expected one: train"):
        play(section, tiny_model_dir, tmp_path / "out", start=tiny_model_dir)


@pytest.mark.slow
def test_kills_at_every_phase_change_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SUPPORT / "yes_rounds.py"), str(tmp_path), str(tiny_model_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 8
    assert found["rounds"] == 2


def test_a_stopping_collection_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    tally: Any = SimpleNamespace(done=2, total=9, kept=1)
    engine: Any = SimpleNamespace(stopped=None)
    monkeypatch.setattr(collecting, "_SECONDS_BETWEEN_LINES", 0.01)

    async def watched() -> None:
        collecting._reporter(said.append)(tally, engine)
        for stopped in (None, "interrupted"):
            engine.stopped = stopped
            await asyncio.sleep(0.05)

    asyncio.run(watched())
    assert said[0] == "2 of 9 tasks ended, 1 kept"
    assert said[-1].startswith(f"{said[0]}; interrupted: running episodes end first")


@pytest.mark.slow
def test_a_server_that_is_started_for_it_plays_a_round(
    ended: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    for module in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(module)
    section = write_rounds(tmp_path)
    player = AgentTaskConfig(**section["evaluators"][0])
    config = RoundsConfig(
        env=player.environment, serve="transformers", attempts=2, temperature=1.0, num_tasks=6
    )
    folder = tmp_path / "round-1"
    folder.mkdir()
    model = ended[0] / "round-1/model"  # says "y"
    facts = collect_round(Collection(config, player, 1, model, folder), lambda _: None)
    assert (facts["tasks"], facts["kept"]) == (6, 6)
    log = (folder / "server.log").read_text("utf-8")
    assert "POST /v1/chat/completions" in log
    port = int(re.search(r"127\.0\.0\.1:(\d+)", log)[1])  # type: ignore[index]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))  # stopped again
