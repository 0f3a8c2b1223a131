"""A collection from a real server: `transformers serve` with a small random model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataset_builders.collection.collector import run, state_path
from dataset_builders.collection.engine import RolloutConfig
from dataset_builders.collection.settings import CollectConfig
from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.environments import load_environment
from dataset_builders.rollouts.limits import Limits

for _module in ("torch", "transformers", "fastapi", "uvicorn", "openai"):
    pytest.importorskip(_module)


@contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def talker(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """The small model with a head of its own: its words are as good as drawn from a hat."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny_model_dir, tie_word_embeddings=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_real_server_is_collected_from(talker: Path, tmp_path: Path) -> None:
    with transformers_serve(talker, tmp_path / "server.log") as url:
        config = CollectConfig(
            RolloutConfig(
                load_environment("database"),
                Endpoint(str(talker), url, timeout=60, tries=2),
                sampling=Sampling(temperature=1.0, seed=1, max_tokens=12),
                limits=Limits(steps=2),
                min_reward=0.0,
                max_concurrency=2,
            ),
            tmp_path / "out",
            num_tasks=4,
        )
        report = run(config)
    assert (report["done"], report["open"]) == (4, 0)
    assert report["completion_tokens"] > 0
    assert report["prompt_tokens"] > report["completion_tokens"]
    assert report["requests"] >= 4
    store = SqliteRolloutLog(state_path(tmp_path / "out", "database"))
    try:
        played = [ending.trajectory for _, ending in store.endings()]
    finally:
        store.close()
    # A random model says something, and nothing that is an action.
    assert {trajectory.exit_reason for trajectory in played} == {"bad_format"}
    assert any(trajectory.messages[-1].content.strip() for trajectory in played)
