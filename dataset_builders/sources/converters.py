"""What makes conversations of a source's records, by format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dataset_builders.cleaning.steps import Cleaner
from dataset_builders.formats import (
    adp,
    agentinstruct,
    atif,
    completions,
    harbor,
    messages,
    openai_log,
    sharegpt,
    verifiers,
)
from dataset_builders.formats.rewards import with_min_reward
from dataset_builders.readers.building import Converted, RecordReader
from dataset_builders.readers.files import Record
from dataset_builders.sources.collected_rewards import CollectedRewards
from dataset_builders.sources.format_options import chat_steps, format_options
from dataset_builders.sources.spec import SourceSpec

CONVERTERS: dict[str, Callable[..., Converted]] = {
    "agentinstruct": agentinstruct.convert,
    "sharegpt": sharegpt.convert,
    "messages": messages.convert,
    "prompt_completion": completions.convert_pair,
    "alpaca": completions.convert_alpaca,
    "adp": adp.convert,
    "atif": atif.convert,
    "verifiers": verifiers.convert,
    "harbor": harbor.convert,
    "openai_log": openai_log.convert,
}
"""What makes a conversation of a record, by format."""

READERS: dict[str, RecordReader] = {
    "verifiers": verifiers.read,
    "harbor": harbor.read,
    "openai_log": openai_log.read,
}
"""Readers of the formats of which one record, or one folder, holds several conversations, or two
records one."""


def converter_of(spec: SourceSpec, rewards: CollectedRewards) -> Callable[[Record], Converted]:
    """Return what converts the records of a source, with the options and filters of its spec.

    Args:
        spec: The source, with a format.
        rewards: Rewards of its rows, where they are not in its records.
    """
    options = format_options(spec)
    if spec.format == "sharegpt":
        options["cleaner"] = Cleaner(chat_steps(spec))
    if spec.format in ("atif", "harbor"):
        options["model"] = atif.trajectory_model()
    convert: Callable[..., Converted] = partial(CONVERTERS[str(spec.format)], **options)
    if rewards:
        convert = partial(rewards.added_to, convert=convert)
    if spec.min_reward is not None:
        convert = partial(with_min_reward, convert=convert, minimum=spec.min_reward)
    return convert
