"""What the side process does: give a server an adapter, measure it there, take it away.

All of it beside training: a server that hangs holds nobody up.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dataset_builders.errors import EndpointError

if TYPE_CHECKING:
    from agenttuning_plugin.args_endpoint import EndpointConfig

_SECONDS = 600.0
"""Loading an adapter may wait for the answers that are being written."""


@dataclass(frozen=True, slots=True)
class Job:
    """An adapter to measure.

    Attributes:
        base_url: Address of the server.
        api_key_env: Environment variable that holds its key.
        name: What the adapter is called there.
        adapter: Its folder.
        command: Arguments of `agenttuning`.
    """

    base_url: str
    api_key_env: str
    name: str
    adapter: str
    command: tuple[str, ...]

    def as_text(self) -> str:
        """The job as an argument of the side process."""
        return json.dumps(asdict(self))


def make_job(settings: EndpointConfig, name: str, folder: Path) -> Job:
    """The job of a step.

    Args:
        settings: The recipe's.
        name: What the adapter is called on the server.
        folder: Holds the adapter as `adapter`; results come here.
    """
    options = {
        "model": settings.base_url,
        "model-name": name,
        "api-key-env": settings.api_key_env,
        "suite": ",".join(settings.suites),
        "out": str(folder),
        "limit": settings.limit,
        "data": settings.data,
        "prompt": settings.prompt,
        "agentinstruct": settings.agentinstruct,
        "max-new-tokens": settings.max_new_tokens,
        "batch-size": settings.batch_size,
        "judge-model": settings.judge_model,
        "judge-base-url": settings.judge_base_url,
        "judge-api-key-env": settings.judge_api_key_env,
    }
    command = ["evaluate"]
    for key, value in options.items():
        command += [] if value is None else [f"--{key}", str(value)]
    for task, given in settings.options.items():
        for key, value in given.items():
            command += ["--option", f"{task}.{key}={json.dumps(value)}"]
    return Job(
        settings.base_url, settings.api_key_env, name, str(folder / "adapter"), tuple(command)
    )


def load_adapter(job: Job) -> None:
    """Have the server load the adapter, in place of one of that name.

    Raises:
        EndpointError: It does not, in one line.
    """
    with suppress(EndpointError):  # Most often it has none.
        unload_adapter(job)
    _post(job, "load_lora_adapter", {"lora_name": job.name, "lora_path": job.adapter})


def unload_adapter(job: Job) -> None:
    """Have the server forget the adapter.

    Raises:
        EndpointError: It does not, in one line.
    """
    _post(job, "unload_lora_adapter", {"lora_name": job.name})


def main(arguments: Sequence[str]) -> None:
    """Run the job in the first argument; the exit status is that of `agenttuning evaluate`."""
    given = json.loads(arguments[0])
    job = Job(**{**given, "command": tuple(given["command"])})
    try:
        load_adapter(job)
    except EndpointError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    from agenttuning_plugin import cli

    sys.argv = ["agenttuning", *job.command]
    try:
        cli.main()
    finally:
        try:
            unload_adapter(job)
        except EndpointError as error:
            print(f"warning: {error}", file=sys.stderr)


def _post(job: Job, route: str, body: dict[str, str]) -> None:
    address = f"{job.base_url.rstrip('/')}/{route}"
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(job.api_key_env, "")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urlopen(
            Request(address, json.dumps(body).encode(), headers), timeout=_SECONDS
        ) as answer:
            answer.read()
    except HTTPError as error:
        told = " ".join(error.read(2000).decode("utf-8", "replace").split())
        if key:
            told = told.replace(key, "[the key]")
        hint = _HINT if error.code == 404 and route.startswith("load") else ""
        raise EndpointError(f"{route} {job.name}: HTTP {error.code}: {told[:300]}{hint}") from error
    except (URLError, OSError, ValueError) as error:
        raise EndpointError(f"{route} {job.name}: {error}") from error


_HINT = (
    " (vLLM has this route with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora; "
    "base_url ends in /v1)"
)

if __name__ == "__main__":
    main(sys.argv[1:])
