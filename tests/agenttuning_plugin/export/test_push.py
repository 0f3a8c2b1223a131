"""`agenttuning push` with the real client against a hub on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.export.push import plan_upload
from dataset_builders.errors import ConfigError, SourceNotFoundError
from tests.support.hub_server import TOKEN, serving_hub

Make = Callable[..., tuple[Path, Any]]


def push(address: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the client reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",  # the stand-in stores files, not chunks of them
        **changes,
    }
    command = [sys.executable, "-m", "agenttuning_plugin", "push", *arguments]
    return subprocess.run(
        command, env=environment, input="", capture_output=True, text=True, check=False
    )


def test_a_models_files_are_uploaded_and_nothing_else(make_run: Make) -> None:
    run, _ = make_run()
    (run / "README.md").unlink()
    (run / "prepared").mkdir()
    (run / "prepared/rows.arrow").write_text("data", "utf-8")
    (run / "evaluations.previous-1.jsonl").write_text("{}", "utf-8")
    with serving_hub() as hub:
        done = push(hub.address, str(run), "--repo", "me/tuned", "--private", "--yes")
        assert done.returncode == 0, done.stderr
        assert f"to {hub.address}/me/tuned (private if it is new)" in done.stdout
        assert f"{hub.address}/me/tuned/commit/" in done.stdout
        assert hub.visibility == {"me/tuned": "private"}
        held = hub.files["me/tuned"]
        expected = {
            "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
            "tokenizer.json", "tokenizer_config.json",
        }  # fmt: skip
        assert set(held) == expected
        assert all(held[name] == (run / name).read_bytes() for name in held)


def test_a_refusal_of_the_hub_is_one_line(make_run: Make) -> None:
    run, _ = make_run()
    with serving_hub() as hub:
        done = push(hub.address, str(run), "--repo", "me/x", "--yes", HF_TOKEN="hf_other")
        assert push(hub.address, str(run), "--repo", "me/x").returncode == 1  # not confirmed
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search("me/x: not uploaded: .*401", done.stderr)
    assert not hub.visibility


def test_what_cannot_be_uploaded_is_refused_before(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    run, _ = make_run()
    with pytest.raises(ConfigError, match="`repo`: Repo id must"):
        plan_upload(run, "me/a b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        plan_upload(run, "me/x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="found no token of the hub"):
        plan_upload(run, "me/x")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SourceNotFoundError, match="found no model weights"):
        plan_upload(tmp_path, "me/x")
    upload = plan_upload(run, "me/x")
    assert "adapter_model.safetensors" in upload.files
    assert "public if it is new" in upload.lines()[0]
