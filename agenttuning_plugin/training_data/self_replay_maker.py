"""Makes `self_replay` sources: loads the model that answers, or opens its server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenttuning_plugin.evaluation.devices import free_memory
from agenttuning_plugin.evaluation.model_identity import model_identity
from agenttuning_plugin.training_data.made_sources import MakeContext, MakePlan
from dataset_builders.errors import ConfigError
from dataset_builders.self_replay.run import (
    LocalAnswers,
    Watch,
    count_prompts,
    inputs_of,
    sampling_of,
    self_replay,
)
from dataset_builders.sources.made import ReplayEndpoint, SelfReplay

if TYPE_CHECKING:
    from dataset_builders.instructions.run_io import Writer
    from dataset_builders.rollouts.model_policies import AnswerTurns
    from evaluators.evaluator import EvalTarget

BASE = "base"
"""Value of `model` for the model that is trained."""


class SelfReplayMaker:
    """See `made_sources.Maker`."""

    def inputs(self, recipe: SelfReplay, context: MakeContext) -> dict[str, Any]:
        """See `Maker.inputs`."""
        return inputs_of(recipe, identity_of(recipe, context))

    def make(self, recipe: SelfReplay, context: MakeContext, folder: Path) -> None:
        """See `Maker.make`.

        Raises:
            ConfigError: A spending limit was reached before all prompts were answered.
        """
        report = answer_prompts(recipe, context, folder)
        if report["stopped"]:
            raise ConfigError(
                f"self_replay: stopped by {report['stopped']} after {report['spent']['requests']} "
                "requests, expected room for all prompts: raise the limit to resume"
            )

    def plan(self, recipe: SelfReplay, context: MakeContext) -> MakePlan:
        """See `Maker.plan`."""
        talks, turns = count_prompts(recipe)
        where = recipe.model.name if isinstance(recipe.model, ReplayEndpoint) else recipe.model
        detail = f"{recipe.prompts}: {turns:,} requests for {talks:,} conversations to {where}"
        return MakePlan(turns, _seconds(recipe, context, turns), detail)

    def stand_in(self, recipe: SelfReplay) -> dict[str, Any]:
        """See `Maker.stand_in`."""
        return {"path": recipe.prompts, "limit": recipe.limit}


def answer_prompts(settings: SelfReplay, context: MakeContext, folder: Path) -> dict[str, Any]:
    """Answer the prompts with the model of the settings, with a progress bar; see `self_replay`."""
    identity = identity_of(settings, context)
    with _bar() as watch:
        if isinstance(settings.model, ReplayEndpoint):
            writer = writer_of(settings, settings.model)
            return self_replay(settings, folder, writer, identity, watch)
        with _loaded(settings, context) as subject:
            answers = LocalAnswers(_answer(subject, settings), _digest(identity))
            return self_replay(settings, folder, answers, identity, watch)


@contextmanager
def _bar() -> Iterator[Watch]:
    from tqdm import tqdm

    with tqdm(desc="self-replay", unit=" answers") as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield watch


def identity_of(settings: SelfReplay, context: MakeContext) -> dict[str, Any]:
    """Return what identifies the model and its prompts, without addresses and paths."""
    if isinstance(settings.model, ReplayEndpoint):
        extra = dict(settings.model.request)
        return {"endpoint": settings.model.name, **({"request": extra} if extra else {})}
    found = model_identity(_place(settings, context))
    if settings.model != BASE:
        return found
    # The run's own tokenizer and template, which need not be those of the folder.
    tokenizer = context.tokenizer
    parts = [
        tokenizer.backend_tokenizer.to_str(),
        json.dumps(tokenizer.chat_template, sort_keys=True),
        json.dumps(context.end_of_turn),
    ]
    return {**found, "tokenizer_sha256": hashlib.sha256("\0".join(parts).encode()).hexdigest()}


def writer_of(settings: SelfReplay, endpoint: ReplayEndpoint) -> Writer:
    """Return the client's settings for a server."""
    from dataset_builders.endpoints.endpoint import Endpoint
    from dataset_builders.endpoints.pricing import PriceTable, read_prices
    from dataset_builders.instructions.run_io import Writer

    return Writer(
        Endpoint(endpoint.name, endpoint.base_url, endpoint.api_key_env),
        replace(sampling_of(settings), extra=dict(endpoint.request)),
        read_prices(Path(endpoint.prices).expanduser()) if endpoint.prices else PriceTable(),
        endpoint.concurrency,
        endpoint.max_tokens,
        endpoint.max_cost,
    )


def _seconds(settings: SelfReplay, context: MakeContext, turns: int) -> float | None:
    """Estimate the time of answers that all reach the token limit, or None for a server."""
    if isinstance(settings.model, ReplayEndpoint):
        return None
    from agenttuning_plugin.estimates.devices import find_device
    from agenttuning_plugin.estimates.generation import estimate_generation
    from agenttuning_plugin.estimates.known_models import model_config_of

    config = model_config_of(_place(settings, context))
    return estimate_generation(config, turns * settings.max_new_tokens, find_device())


def _place(settings: SelfReplay, context: MakeContext) -> str:
    place = context.base_model if settings.model == BASE else str(settings.model)
    if not place:
        raise ConfigError(
            "self_replay: model: found base, expected a folder or hub id: the base model is not "
            "known here"
        )
    return place


@contextmanager
def _loaded(settings: SelfReplay, context: MakeContext) -> Iterator[EvalTarget]:
    """Load the model that answers, and free its memory afterwards."""
    from agenttuning_plugin.evaluation.model_loading import open_subject
    from evaluators.models.eval_mode import evaluation_mode

    subject = open_subject(_place(settings, context), end_of_turn=context.end_of_turn)
    if settings.model == BASE:
        subject = replace(subject, tokenizer=context.tokenizer)
    try:
        with evaluation_mode(subject):
            yield subject
    finally:
        del subject
        free_memory()


def _answer(subject: EvalTarget, settings: SelfReplay) -> AnswerTurns:
    from evaluators.models.interface import Decoding
    from evaluators.tasks.agent_task import answer_turns

    how = Decoding(0, settings.temperature, settings.top_p, seed=settings.seed)
    return answer_turns(subject.language_model(), decoding=how)


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
