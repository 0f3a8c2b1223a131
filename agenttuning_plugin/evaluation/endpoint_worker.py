"""Child process of endpoint evaluation: load an adapter on the server, evaluate, unload.

It runs beside training: a hanging server does not block it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.evaluation.server import RouteError, Server, load_hint
from dataset_builders.errors import AgentTuningError, EndpointError

if TYPE_CHECKING:
    from agenttuning_plugin.config.endpoint import EndpointConfig


@dataclass(frozen=True, slots=True)
class Job:
    """An adapter to evaluate.

    Attributes:
        base_url: Base URL of the server.
        api_key_env: Environment variable with its API key.
        name: Name of the adapter there.
        adapter: Its folder.
        command: Arguments of `agenttuning`.
        prompts: Fields of `served_prompts.Prompts`, which the server must match; None skips the
            comparison.
    """

    base_url: str
    api_key_env: str
    name: str
    adapter: str
    command: tuple[str, ...]
    prompts: dict[str, Any] | None = None

    @property
    def server(self) -> Server:
        """The server."""
        return Server(self.base_url, self.api_key_env)

    def as_text(self) -> str:
        """Return the job as an argument of the child process."""
        return json.dumps(asdict(self))


def make_job(
    settings: EndpointConfig,
    name: str,
    folder: Path,
    adapter: Path | None = None,
    prompts: dict[str, Any] | None = None,
) -> Job:
    """Create the job of a step.

    Args:
        settings: The recipe's.
        name: Name of the adapter on the server.
        folder: Output folder of the results.
        adapter: Folder of the adapter; `adapter` in `folder` by default.
        prompts: See `Job`.
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
    for key, value in ((prompts or {}).get("template_kwargs") or {}).items():
        command += ["--chat-template-kwargs", f"{key}={json.dumps(value)}"]
    for task, given in settings.options.items():
        for key, value in given.items():
            command += ["--option", f"{task}.{key}={json.dumps(value)}"]
    place = str(adapter or folder / "adapter")
    return Job(settings.base_url, settings.api_key_env, name, place, tuple(command), prompts)


def load_adapter(job: Job) -> None:
    """Load the adapter on the server, replacing one of the same name.

    Raises:
        EndpointError: It fails, in one line.
    """
    with suppress(EndpointError):  # Usually it has none.
        unload_adapter(job)
    _post(job, "load_lora_adapter", {"lora_name": job.name, "lora_path": job.adapter})


def unload_adapter(job: Job) -> None:
    """Unload the adapter from the server.

    Raises:
        EndpointError: It fails, in one line.
    """
    _post(job, "unload_lora_adapter", {"lora_name": job.name})


def main(arguments: Sequence[str]) -> None:
    """Run the job in the first argument; the exit status is that of `agenttuning evaluate`."""
    given = json.loads(arguments[0])
    job = Job(**{**given, "command": tuple(given["command"])})
    try:
        _compare(job)
        load_adapter(job)
    except AgentTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    from agenttuning_plugin.cli import main as cli

    sys.argv = ["agenttuning", *job.command]
    try:
        cli.main()
    finally:
        try:
            unload_adapter(job)
        except EndpointError as error:
            print(f"warning: {error}", file=sys.stderr)


def _compare(job: Job) -> None:
    """Compare the server's prompts with the recipe's again: it may have been restarted."""
    if job.prompts is not None:
        from agenttuning_plugin.evaluation.served_prompts import Prompts, compare_prompts

        with suppress(RouteError):  # The error of loading is more informative.
            compare_prompts(job.server, Prompts(**job.prompts))


def _post(job: Job, route: str, body: dict[str, str]) -> None:
    try:
        job.server.call(route, body)
    except RouteError as error:
        hint = load_hint(error, job.adapter) if route.startswith("load") else ""
        raise EndpointError(f"{route} {job.name}: {error}{hint}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
