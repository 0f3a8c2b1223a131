"""Rollouts of verifiers and prime-rl: `traces.jsonl`, `results.jsonl`, and exported rows.

Records:

- `{task, traces: [{nodes, rewards, ...}]}`: an episode of verifiers 0.2 to 0.4 (`traces.jsonl`).
  Each branch of each trace is a conversation.
- `{task, nodes, rewards, ...}`: one trace, as in dumps of rollouts of prime-rl.
- `{example_id, prompt, completion, reward, ...}`: a result of `vf-eval` in verifiers 0.1, and 0.3
  under `legacy` (`results.jsonl`).
- `{trace_id, branch_index, messages, reward, ...}`: a branch, as prime-rl's
  `convert_traces_to_hf_dataset.py` exports it.

A trace is a graph of messages; see `trace_branches`. Dropped and counted are rollouts that an error
ended or that did not end (`rollout_ends`), those of agents that are not trained
(`trainable: false`), and attempts at a compaction that the harness did not use. All branches of an
episode have one location, and exported ones of a trace do, so that they are never split between
training and holdout. The reward is kept: of a trace the sum of its weighted rewards.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from dataset_builders.conversation import TRAIN_FIELD
from dataset_builders.formats.dialects import plain_turns
from dataset_builders.formats.rewards import number_of
from dataset_builders.formats.rollout_ends import check_end, check_no_error
from dataset_builders.formats.shapes import from_raw, openai_tools
from dataset_builders.formats.trace_branches import Branch, branches_of, convert_branch
from dataset_builders.readers.building import (
    Converted,
    RecordDroppedError,
    every_record,
    object_of,
)
from dataset_builders.readers.files import Located, Record
from dataset_builders.readers.json_stream import BadRecord, OnLost
from dataset_builders.readers.turn_lists import turn_list
from dataset_builders.tools import metadata_text

SOURCE = "verifiers"


def read(located: Located, on_lost: OnLost) -> Generator[Record]:
    """Yield the branches of every trace in the files; records of other layouts as they are."""
    with closing(every_record(located, on_lost)) as records:
        for record in records:
            for value in _parts(record.value):
                yield record._replace(value=value)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping) and "traces" in value:
        traces = value["traces"]
        if not isinstance(traces, list):
            yield BadRecord(
                "bad_trace", f"traces: found {type(traces).__name__}, expected a list of traces"
            )
        elif not traces:
            cause = f"; errors: {value['errors']!r:.160}" if value.get("errors") else ""
            yield BadRecord("no_trace", f"traces: found none, expected one at least{cause}")
        else:
            for number, trace in enumerate(traces):
                yield from branches_of(trace, value, f"traces[{number}]: ")
    elif isinstance(value, Mapping) and "nodes" in value:
        yield from branches_of(value, {}, "")
    else:
        yield value


def convert(record: Record) -> Converted:
    """Convert a branch, a result or an exported row to a conversation.

    Args:
        record: The record, from `read`.

    Raises:
        RecordDroppedError: It cannot be used.
    """
    if isinstance(record.value, Branch):
        return convert_branch(record.value, SOURCE)
    row = object_of(record)
    if "completion" in row:
        return _convert_result(row)
    if "messages" in row:
        return _convert_exported(row)
    raise RecordDroppedError(
        "bad_trace",
        f"found only {', '.join(map(repr, list(row)[:6])) or 'nothing'}, expected traces, nodes, "
        "prompt and completion, or messages",
    )


def _convert_result(row: Mapping[str, Any]) -> Converted:
    """Convert a result of `vf-eval`: the loss covers the completion."""
    check_no_error(row.get("error"), "error")
    check_end(row, None)
    context, answer = _turns(row, "prompt", "user"), _turns(row, "completion", "assistant")
    for turn in context:
        turn[TRAIN_FIELD] = False
    fields = {
        "id": row.get("example_id"),
        "task": row.get("task") if isinstance(row.get("task"), str) else "",
        "model": row.get("model"),
        "tools": openai_tools(row.get("tool_defs") or _info(row).get("oai_tools")),
    }
    converted = from_raw(fields, [*context, *answer], SOURCE, {})
    return _rewarded(converted, row)


def _convert_exported(row: Mapping[str, Any]) -> Converted:
    """Convert a branch that prime-rl exported; its location is the trace's."""
    if row.get("trainable") is False:
        raise RecordDroppedError("not_trainable", "trainable: found false, expected true")
    check_end(row, row.get("error_type"))
    trace, number = metadata_text(row.get("trace_id")), row.get("branch_index")
    several = number or row.get("num_branches", 1) != 1
    fields = {
        "id": f"{trace}/{number}" if several else trace,
        "task": row.get("env_name") or row.get("env_id") or row.get("task_type"),
        "model": row.get("model"),
        "tools": openai_tools(row.get("tools")),
    }
    converted = _rewarded(from_raw(fields, _turns(row, "messages", ""), SOURCE, {}), row)
    where = f"trace {trace}" if several and trace else ""
    return converted._replace(conversation=replace(converted.conversation, where=where))


def _turns(row: Mapping[str, Any], field: str, role: str) -> list[dict[str, Any]]:
    value = row.get(field)
    if role and isinstance(value, str) and not value.lstrip().startswith("["):
        return [{"role": role, "content": value}]
    turns = plain_turns(turn_list(value))
    if not isinstance(turns, list) or not turns or not all(isinstance(t, dict) for t in turns):
        raise RecordDroppedError(
            "bad_messages", f"{field}: found {value!r:.60}, expected a list of messages"
        )
    for turn in turns:
        # Parquet has no column type for calls, so verifiers writes each as JSON text.
        turn["tool_calls"] = turn_list(turn["tool_calls"])
    return turns


def _info(row: Mapping[str, Any]) -> Mapping[str, Any]:
    info = row.get("info")
    return info if isinstance(info, Mapping) else {}


def _rewarded(converted: Converted, row: Mapping[str, Any]) -> Converted:
    reward = number_of(row.get("reward"), "reward")
    return converted._replace(conversation=replace(converted.conversation, reward=reward))
