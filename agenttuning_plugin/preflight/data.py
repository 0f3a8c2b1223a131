"""Check a recipe's sources on a sample of each.

The sample is read and encoded by the functions that a run uses, so that what passes here
passes there.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agenttuning_plugin.config.evaluation import ReplayConfig
from agenttuning_plugin.config.findings import Finding, guarded
from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.preflight.sample import is_here, local_copy, needs_all
from dataset_builders.conversation import Conversation
from dataset_builders.errors import SourceNotFoundError
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.losses import REQUESTED, loss_warnings
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.pools import weighted_pools
from dataset_builders.mixing.preparation import Encoding, prepare
from dataset_builders.sources.inputs import resolve_evaluation_source, resolve_source
from dataset_builders.sources.loading import SourceSpec, stream_source

LOOKED_AT = 64
"""Conversations of each source whose content is looked at."""

_ACTION = re.compile(r"^\W*(thought|think|action|act|operation)\s*:|<tool_call>", re.I | re.M)
_MOSTLY = 0.5


@dataclass(slots=True)
class Side:
    """Sample read from one side.

    Attributes:
        name: "agent" or "general".
        files: Files of its local sources.
        sample: The first conversations of each local source.
        different: Number of different conversations read.
        tasks: Task of each conversation read.
        by_task: Number of different conversations read of each task.
        complete: Whether every source is local and was read to its end.
        remote: Hub ids, which are not fetched here.
    """

    name: str
    files: list[Path] = field(default_factory=list)
    sample: list[Conversation] = field(default_factory=list)
    different: int = 0
    tasks: list[str] = field(default_factory=list)
    by_task: Counter[str] = field(default_factory=Counter)
    complete: bool = True
    remote: list[SourceSpec] = field(default_factory=list)

    @property
    def acting(self) -> float:
        """Share of the sample that looks like agent trajectories."""
        return sum(map(acts, self.sample)) / max(1, len(self.sample))


def check_data(
    section: AgentTuningSection, agent: Side, general: Side, *, fetch: bool = False
) -> Iterator[Finding]:
    """Read the first conversations of each source.

    Args:
        section: The recipe's section.
        agent: Receives what was read of the agent data.
        general: The same of general data.
        fetch: Whether to fetch hub data that is not in the cache.
    """
    sides = section.sides_read()
    if "agent" in sides:
        yield from _read(agent, section.agent, fetch, all_of_it=needs_all(section))
    if "general" in sides:
        yield from _read(general, section.general, fetch, at_least=section.holdout + 1)
    yield from _holdout(general, section.holdout)
    yield from _agent_holdout(agent, section.agent_holdout)
    yield from guarded("task weights", lambda: _task_weights(agent, section.task_weights))
    yield from _shared_files(agent, general)
    yield from _replayed(agent, section)
    yield from _swapped(agent, general)


def _read(
    side: Side,
    specs: Iterable[SourceSpec],
    fetch: bool,
    *,
    at_least: int = 0,
    all_of_it: bool = False,
) -> Iterator[Finding]:
    what = f"{side.name} source"
    seen: set[tuple[str, bytes]] = set()
    for spec in specs:
        before = len(side.sample)
        if not fetch and not is_here(spec):
            side.remote.append(spec)
            detail = f"{spec.path}, fetched from the hub when training starts; not read here"
            yield Finding(what, detail)
        else:
            yield from guarded(what, lambda: _source(side, spec, at_least, all_of_it, seen))  # noqa: B023
        if len(side.sample) == before:
            side.complete = False
    side.different = len({digest for _, digest in seen})
    side.by_task.update(task for task, _ in seen)


def _source(
    side: Side, spec: SourceSpec, at_least: int, all_of_it: bool, seen: set[tuple[str, bytes]]
) -> Iterator[Finding]:
    source = resolve_source(local_copy(spec))
    files = source.files.files
    # Of trials their trajectories: two of them may well have the same reward.
    side.files += [f for f in files if not source.files.trials or f.match("trajectory*.json")]
    result = stream_source(source)
    start = len(seen)
    for number, conversation in enumerate(result.conversations, 1):
        side.tasks.append(conversation.task)
        seen.add((conversation.task, _digest(conversation)))
        if number <= LOOKED_AT:
            side.sample.append(conversation)
        elif not all_of_it and len(seen) - start >= at_least:
            side.complete = False
            break
    report = result.report
    detail = (
        f"{spec.path}, {source.spec.format}, {len(files)} file(s): {report.read:,} records read"
    )
    lost = sum(report.dropped.values())
    if not lost and not report.lost:
        yield Finding(f"{side.name} source", detail)
        return
    reason, count = report.dropped.most_common(1)[0] if lost else ("damaged", len(report.lost))
    example = report.samples[reason][0] if lost else report.lost[0]
    detail += f", {lost:,} of them dropped, mostly {reason} ({count:,}), for example {example}"
    requested = not report.lost and all(why.startswith(REQUESTED) for why in report.dropped)
    yield Finding(f"{side.name} source", detail, "ok" if requested else "warning")


def _digest(conversation: Conversation) -> bytes:
    text = repr([(m.role, m.content, m.reasoning, m.tool_calls) for m in conversation.messages])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _holdout(general: Side, holdout: int) -> Iterator[Finding]:
    if general.complete and general.sample and 0 < holdout >= general.different:
        yield Finding(
            "holdout",
            f"agenttuning.holdout: found {holdout}, expected at most {general.different - 1}: the "
            f"general sources hold {general.different} different conversations, and one at least "
            "has to remain for training",
            "error",
        )


def _agent_holdout(agent: Side, holdout: int) -> Iterator[Finding]:
    found = sorted(task for task, number in agent.by_task.items() if number <= holdout)
    if agent.complete and holdout and found:
        tasks = ", ".join(f"{agent.by_task[task]} of {task or '(no task)'}" for task in found[:4])
        more = f" and {len(found) - 4} more tasks" if len(found) > 4 else ""
        yield Finding(
            "agent holdout",
            f"agenttuning.agent_holdout: found {holdout}, expected fewer than the different "
            f"conversations of each task, as one has to remain for training: the agent sources "
            f"hold {tasks}{more}",
            "error",
        )


def _task_weights(agent: Side, weights: dict[str, float]) -> Iterator[Finding]:
    if weights and agent.complete and agent.tasks:
        weighted_pools(agent.tasks, weights, "agenttuning.task_weights")
        yield Finding("task weights", ", ".join(weights))


def _shared_files(agent: Side, general: Side) -> Iterator[Finding]:
    """Find records that occur on both sides, or twice on one, which would distort eta."""
    names = {"agent": agent.files, "general": general.files}
    found: dict[tuple[int, str], tuple[str, Path]] = {}
    sizes = [file.stat().st_size for side in names.values() for file in side]
    for name, files in names.items():
        for file in files:
            size = file.stat().st_size
            same_size = sizes.count(size) > 1
            key = (size, _sha256(file) if same_size else str(file.resolve()))
            if key in found and size:
                other, first = found[key]
                detail = f"{file}: the same data as {first}, under {name} and under {other}"
                level: Any = "error" if other != name else "warning"
                yield Finding("sources", detail, level)
            found.setdefault(key, (name, file))
    for spec in agent.remote:
        twins = [each for each in general.remote if _records_of(each) == _records_of(spec)]
        for twin in twins:
            detail = f"{twin.path}: the same data under agent and under general"
            yield Finding("sources", detail, "error")


def _records_of(spec: SourceSpec) -> tuple[Any, ...]:
    return spec.path, spec.revision, spec.splits, spec.data_files


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _replayed(agent: Side, section: AgentTuningSection) -> Iterator[Finding]:
    """Find replay trajectories that are also trained on: figures would show memorisation."""
    mine = {file.resolve() for file in agent.files}
    for config in section.evaluators:
        if not isinstance(config, ReplayConfig) or config.data is None:
            continue
        try:
            files = resolve_evaluation_source(config.data).files.files
        except SourceNotFoundError:
            continue  # reported by the evaluator's own check
        for file in files:
            if file.resolve() in mine:
                detail = f"{file}: replayed and trained on, expected trajectories of their own"
                yield Finding("evaluator replay", detail, "error")


def acts(conversation: Conversation) -> bool:
    """Whether a conversation looks like an agent's: it calls tools, or writes its actions."""
    for message in conversation.messages:
        if message.tool_calls or message.role == "tool":
            return True
        if message.role == "assistant" and _ACTION.search(message.content):
            return True
    return False


def _swapped(agent: Side, general: Side) -> Iterator[Finding]:
    share = (
        f"{sum(map(acts, agent.sample))} of {len(agent.sample)} agent conversations and "
        f"{sum(map(acts, general.sample))} of {len(general.sample)} general ones of the sample "
        "call a tool or write an action"
    )
    if agent.sample and general.sample and agent.acting < _MOSTLY < general.acting:
        yield Finding("sides", f"agent and general may be swapped: {share}", "warning")
    elif general.sample and general.acting > _MOSTLY:
        yield Finding("sides", f"general may hold agent data: {share}", "warning")
    elif agent.sample and not agent.acting:
        yield Finding("sides", f"agent may hold general chat: {share}", "warning")


def check_sample(side: Side, tokenizer: Any, encoding: Encoding) -> Iterator[Finding]:
    """Encode what was read of one side, where the whole run cannot be built.

    Raises:
        DataError: No row of it can be trained on.
    """
    share = 1.0 if side.name == "agent" else 0.0
    given: dict[str, Any] = {"agent": None, "general": None, side.name: side.sample}
    prepared = prepare(
        given["agent"],
        given["general"],
        plan=Plan(eta=(QuotaStage(0, share),)),
        tokenizer=tokenizer,
        encoding=replace(encoding, holdout=0, agent_holdout=0),
        quiet=True,
    )
    for line in loss_warnings(prepared.report, encoding.max_length):
        yield Finding(f"{side.name} rows", line, "warning")
    yield Finding(f"{side.name} rows", prepared.report[side.name]["tokens"]["summary"])
