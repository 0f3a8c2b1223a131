"""A real vLLM beside the tests, from an environment of its own: see `make environments`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_TO_START = 480.0


def vllm_python() -> Path | None:
    """Python of the environment that has vLLM; None where there is none.

    `AGENTTUNING_VLLM` names another environment's folder.
    """
    folder = Path(os.environ.get("AGENTTUNING_VLLM") or ROOT / ".venv-vllm")
    python = folder / "bin/python"
    installed = any(folder.glob("lib/python*/site-packages/vllm/__init__.py"))
    return python if python.is_file() and installed else None


NEEDS_VLLM = [
    pytest.mark.slow,
    pytest.mark.skipif(
        vllm_python() is None, reason="no vLLM in .venv-vllm: make environments gets it"
    ),
]
"""Marks of tests of a real vLLM."""


def small_model(tokenizer: Any) -> Any:
    """A random Llama of 2 layers with heads of 64; vLLM's kernels for CPUs take no smaller ones."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlamaForCausalLM(config)


@contextmanager
def serving_vllm(python: Path, model: Path, log: Path, *flags: str) -> Iterator[str]:
    """Serve a model as `base`, with LoRA adapters and further flags; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)]
    # float32: answers are then those of the same weights in this process.
    command += ["--dtype", "float32", "--max-model-len", "4096"]
    command += ["--enable-lora", "--max-lora-rank", "16", *flags]
    variables = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait(process, url, log)
        yield url
    finally:
        with suppress(ProcessLookupError):  # Its engine is a process of its own.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until and process.poll() is None:
        with suppress(URLError, OSError), urlopen(f"{url}/models", timeout=5):
            return
        time.sleep(1)
    tail = log.read_text("utf-8", "replace")[-2000:]
    raise AssertionError(f"vLLM did not start (exit status {process.poll()}): {tail}")
