"""Child process of endpoint evaluation: load an adapter on the server, evaluate, unload.

It runs beside training: a hanging server does not block it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from agenttuning_plugin.config.evaluation_run import EvaluationRun
from agenttuning_plugin.evaluation.measure import measure, report
from agenttuning_plugin.evaluation.server import RouteError, Server, load_hint
from dataset_builders.errors import AgentTuningError, EndpointError
from dataset_builders.settings import from_json, settings

if TYPE_CHECKING:
    from agenttuning_plugin.config.endpoint import EndpointConfig


@settings
class Job:
    """An adapter to measure."""

    adapter: str = Field(description="Its folder.")
    run: EvaluationRun = Field(description="What is measured, where, and its name there.")
    prompts: dict[str, Any] | None = Field(
        default=None,
        description="Fields of `served_prompts.Prompts`, which the server has to agree with.",
    )

    @property
    def name(self) -> str:
        """What the adapter is called on the server."""
        return self.run.model_name or ""

    @property
    def server(self) -> Server:
        """Where it is measured."""
        return Server(self.run.model, self.run.api_key_env)


def make_job(
    config: EndpointConfig,
    name: str,
    folder: Path,
    adapter: Path | None = None,
    prompts: dict[str, Any] | None = None,
) -> Job:
    """Create the job of a step.

    Args:
        config: The recipe's.
        name: What the adapter is called on the server.
        folder: Results come here.
        adapter: Folder of the adapter; `adapter` in `folder` by default.
        prompts: See `Job`.
    """
    run = EvaluationRun(
        model=config.base_url,
        suites=tuple(config.suites),
        tasks=config.task_settings(),
        limit=config.limit,
        out=str(folder),
        model_name=name,
        api_key_env=config.api_key_env,
        chat_template_kwargs=(prompts or {}).get("template_kwargs") or {},
    )
    return Job(str(adapter or folder / "adapter"), run, prompts)


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
    job = from_json(Job, arguments[0])
    try:
        _compare(job)
        load_adapter(job)
        try:
            well = report(measure(job.run), job.run)
        finally:
            _unload(job)
    except AgentTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if well else 1)


def _unload(job: Job) -> None:
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
