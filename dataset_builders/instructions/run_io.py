"""Run folders of Task Derivation and Self-Instruct.

A run's folder has `replies.sqlite` with every reply (the collector's store), `tasks/`,
which the environment takes as its train split, and `report.json`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dataset_builders.collection.store import SqliteRolloutLog
from dataset_builders.endpoints.client import EndpointClient
from dataset_builders.endpoints.concurrency import AdaptiveLimit
from dataset_builders.endpoints.endpoint import Endpoint
from dataset_builders.endpoints.pricing import PriceTable
from dataset_builders.endpoints.requests import Sampling
from dataset_builders.errors import ConfigError
from dataset_builders.instructions.budget import budget
from dataset_builders.instructions.files import write_json
from dataset_builders.instructions.refused_requests import PatientModel
from dataset_builders.rollouts.recorded_client import RecordedClient

REPORT = "report.json"
REPLIES = "replies.sqlite"
TASKS = "tasks"


@dataclass(frozen=True, slots=True)
class Writer:
    """The model that generates text, and its limits.

    Attributes:
        endpoint: Its endpoint.
        sampling: Sampling settings.
        prices: Prices of its tokens.
        concurrency: Maximum requests in flight.
        max_tokens: Prompt and completion tokens after which nothing is sent; None for no limit.
        max_cost: Cost after which nothing is sent; None for no limit.

    Raises:
        ConfigError: A cost limit is set and the model has no price.
    """

    endpoint: Endpoint
    sampling: Sampling = field(default_factory=Sampling)
    prices: PriceTable = field(default_factory=PriceTable)
    concurrency: int = 16
    max_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and not self.prices.knows(self.endpoint.model):
            raise ConfigError(
                f"max_cost: no price of {self.endpoint.model!r} is known; name it in a price table"
            )


@asynccontextmanager
async def asking(
    writer: Writer, out: Path, settings: Mapping[str, Any]
) -> AsyncIterator[tuple[PatientModel, SqliteRolloutLog]]:
    """Open a run's store and its client.

    Args:
        writer: The model.
        out: The run's folder.
        settings: Settings that the data depend on; a folder created with others is refused.

    Raises:
        ConfigError: The folder is in use by another process, or was created with other settings.
        MissingExtraError: openai is not installed.
    """
    writer.endpoint.check()
    store = SqliteRolloutLog(out / REPLIES)
    try:
        store.agree({"model": writer.endpoint.model, **asdict(writer.sampling), **settings})
        store.price(writer.endpoint.model, writer.prices)
        transport = EndpointClient(
            writer.endpoint,
            AdaptiveLimit(writer.concurrency),
            prices=writer.prices,
            may_send=budget(store.spent, writer.max_tokens, writer.max_cost),
        )
        async with transport:
            client = RecordedClient(transport, writer.sampling, store)
            yield PatientModel(client, store.spent().requests > 0), store
    finally:
        store.close()


def account(out: Path, report: Any, store: SqliteRolloutLog | None = None) -> dict[str, Any]:
    """Write and return the report of a run.

    Args:
        out: The run's folder.
        report: A dataclass of counts.
        store: Has the model's usage, if one was used.
    """
    # Not asdict: it cannot copy a Counter.
    content = {each.name: getattr(report, each.name) for each in fields(report)}
    if store is not None:
        spent = store.spent()
        content["spent"] = {**asdict(spent), "tokens": spent.tokens}
    write_json(out / REPORT, content)
    return content
