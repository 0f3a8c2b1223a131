"""Branches of a verifiers trace: each path of its message graph is one conversation.

A trace stores each message once, as a node with the index of its `parent`. Where the harness
rewrote the history (a compaction of the context, a subagent), the graph has several leaves; the
path from a root to a leaf is what the model saw and wrote there. A turn that several branches share
is trained on in the first of them, so that no turn counts twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dataset_builders.conversation import REASONING_FIELD, TRAIN_FIELD
from dataset_builders.formats.rewards import BAD_REWARD, number_of
from dataset_builders.formats.rollout_ends import check_end
from dataset_builders.formats.shapes import from_raw, openai_tools, text_of
from dataset_builders.readers.building import Converted, RecordDroppedError
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.tools import metadata_text

_ATTEMPT, _COMPACTION = "compaction_attempt", "compaction"


@dataclass(frozen=True, slots=True)
class Branch:
    """One path of a trace's graph, from a root to a leaf.

    Attributes:
        trace: The trace.
        episode: The episode that holds it, {} for a trace on its own.
        path: Indices of its nodes, from the root.
        own: Indices of those that no earlier branch of the trace has.
        number: Number of the branch in its trace, from 0.
        of: How many branches the trace has.
        used: Whether the rollout went on from it, or ended with it.
        place: Where the trace is in the record, for messages.
    """

    trace: Mapping[str, Any]
    episode: Mapping[str, Any]
    path: tuple[int, ...]
    own: frozenset[int]
    number: int
    of: int
    used: bool
    place: str


def branches_of(trace: Any, episode: Mapping[str, Any], place: str) -> Iterator[Branch | BadRecord]:
    """Yield the branches of a trace, or a `BadRecord` if it is not a graph of messages.

    Args:
        trace: The trace.
        episode: The episode that holds it, or {}.
        place: Where the trace is in the record, such as "traces[0]: ".
    """
    try:
        nodes = _nodes_of(trace, place)
    except RecordDroppedError as error:
        yield BadRecord(error.reason, error.detail)
        return
    parents = {node.get("parent") for node in nodes}
    leaves = [index for index in range(len(nodes)) if index not in parents]
    accepted = {node for item in nodes for kind, node in _links(item) if kind == _COMPACTION}
    seen: set[int] = set()
    for number, leaf in enumerate(leaves):
        path = _path(nodes, leaf)
        attempt = any(kind == _ATTEMPT for kind, _ in _links(nodes[leaf]))
        used = not attempt or leaf in accepted
        own = frozenset(path) - seen
        yield Branch(trace, episode, path, own, number, len(leaves), used, place)
        if used:
            seen |= own


def _nodes_of(trace: Any, place: str) -> list[Mapping[str, Any]]:
    nodes = trace.get("nodes") if isinstance(trace, Mapping) else None
    if not isinstance(nodes, list):
        raise RecordDroppedError(
            "bad_trace", f"{place}nodes: found {type(nodes).__name__}, expected a list"
        )
    if not nodes:
        raise RecordDroppedError("no_turns", f"{place}nodes: found none{_why(trace)}")
    for index, node in enumerate(nodes):
        if not isinstance(node, Mapping) or not isinstance(node.get("message"), Mapping):
            raise RecordDroppedError(
                "bad_trace", f"{place}node {index}: found {node!r:.60}, expected one with a message"
            )
        parent = node.get("parent")
        if parent is not None and (type(parent) is not int or not 0 <= parent < index):
            raise RecordDroppedError(
                "bad_trace",
                f"{place}node {index}: parent: found {parent!r:.40}, expected the index of an "
                "earlier node or null",
            )
    return nodes


def _why(trace: Mapping[str, Any]) -> str:
    errors = trace.get("errors")
    return f"; errors: {errors!r:.160}" if errors else ""


def _path(nodes: list[Mapping[str, Any]], leaf: int) -> tuple[int, ...]:
    path: list[int] = []
    node: int | None = leaf
    while node is not None:
        path.append(node)
        node = nodes[node].get("parent")
    return tuple(reversed(path))


def _links(node: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    links = node.get("semantic_parents")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, Mapping) and type(link.get("node")) is int:
            yield link.get("type"), link.get("node")


def convert_branch(branch: Branch, source: str) -> Converted:
    """Convert a branch to a conversation; its id is the trace's, with the number of the branch.

    Raises:
        RecordDroppedError: It cannot be used; names the trace and the branch.
    """
    try:
        return _converted(branch, source)
    except RecordDroppedError as error:
        number = f"branch {branch.number}: " if branch.of > 1 else ""
        raise RecordDroppedError(error.reason, f"{branch.place}{number}{error.detail}") from error


def _converted(branch: Branch, source: str) -> Converted:
    trace = branch.trace
    agent = _object(trace, "agent")
    if agent.get("trainable") is False:
        raise RecordDroppedError("not_trainable", "agent.trainable: found false, expected true")
    check_end(trace, trace.get("errors"))
    if not branch.used:
        raise RecordDroppedError(
            "not_trainable", "found an attempt at a compaction that the harness did not use"
        )
    changes: dict[str, int] = {}
    cut = _cut_nodes(trace)
    turns = [_turn(branch, place, index, cut, changes) for place, index in enumerate(branch.path)]
    identity = metadata_text(trace.get("id"))
    root = branch.trace["nodes"][branch.path[0]]
    fields = {
        "id": f"{identity}/{branch.number}" if branch.of > 1 else identity,
        "task": _task_of(branch),
        "model": _model_of(branch, agent),
        "tools": openai_tools(root.get("tools") or trace.get("tools")),
    }
    converted = from_raw(fields, turns, source, changes)
    reward = reward_of(trace.get("rewards"))
    return converted._replace(conversation=replace(converted.conversation, reward=reward))


def _turn(
    branch: Branch, place: int, index: int, cut: set[Any], changes: dict[str, int]
) -> dict[str, Any]:
    node = branch.trace["nodes"][index]
    message, where = node["message"], f"message {place}: "
    sampled = node.get("sampled") is True and message.get("role") == "assistant"
    trained = sampled and index in branch.own
    if trained and index in cut:
        raise RecordDroppedError(
            "cut_turn", f"{where}finish_reason: found 'length': the answer was cut"
        )
    changes["shared_turns"] = changes.get("shared_turns", 0) + (sampled and not trained)
    kept_apart = bool(message.get("provider_state"))
    changes["provider_state_left_out"] = changes.get("provider_state_left_out", 0) + kept_apart
    return {
        "role": message.get("role"),
        "content": text_of(message.get("content") or "", f"{where}content"),
        TRAIN_FIELD: trained,
        "tool_calls": _calls(message.get("tool_calls"), where),
        "tool_call_id": message.get("tool_call_id"),
        "name": message.get("name"),
        REASONING_FIELD: message.get(REASONING_FIELD),
    }


def _calls(calls: Any, where: str) -> Any:
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, Mapping) and call.get("type") == "custom":
            raise RecordDroppedError(
                "unsupported_field",
                f"{where}tool_calls: type: found 'custom', expected a function's JSON arguments",
            )
    return calls


def _cut_nodes(trace: Mapping[str, Any]) -> set[Any]:
    return {call.get("node") for call in _calls_of(trace) if call.get("finish_reason") == "length"}


def _calls_of(trace: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the model calls that gave a node."""
    calls = trace.get("calls")
    return [
        call
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, Mapping) and type(call.get("node")) is int
    ]


def reward_of(rewards: Any) -> float | None:
    """Return the reward of a trace: the weighted sum of its named rewards, None if unscored.

    Args:
        rewards: By name `{score, weight}`, a number, or null where scoring did not run.

    Raises:
        RecordDroppedError: It has another form, or is not finite (`bad_reward`).
    """
    if rewards is None:
        return None
    if not isinstance(rewards, Mapping):
        raise RecordDroppedError(
            BAD_REWARD, f"rewards: found {rewards!r:.60}, expected an object of named rewards"
        )
    values: list[float] = []
    for name, reward in rewards.items():
        where = f"rewards.{name}"
        if isinstance(reward, Mapping):
            score = number_of(reward.get("score"), f"{where}.score")
            weight = number_of(reward.get("weight", 1.0), f"{where}.weight")
            values += [score * weight] if score is not None and weight is not None else []
        elif reward is not None:
            number = number_of(reward, where)
            values += [number] if number is not None else []
    return sum(values) if values else None


def _task_of(branch: Branch) -> str:
    env, task = _object(branch.episode, "env"), _object(branch.trace, "task")
    found = env.get("name") or env.get("id") or task.get("type")
    return metadata_text(found)


def _model_of(branch: Branch, agent: Mapping[str, Any]) -> str:
    calls = [call for call in _calls_of(branch.trace) if call.get("node") in branch.own]
    names = {str(call["model"]) for call in calls if call.get("model")}
    if len(names) == 1:
        return next(iter(names))
    return metadata_text(_object(agent, "config").get("model")) if not names else ""


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}
