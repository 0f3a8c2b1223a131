"""Rollouts of verifiers and prime-rl, written by those packages: rewards, branches, errors.

`tests/assets/traces` holds what verifiers 0.4.0 and 0.1.14 wrote for a small environment of our
own, with a scripted server as the model; see its README.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builders.encoding.row_index import make_index
from dataset_builders.errors import DataError
from dataset_builders.mixing.holdout import split_holdout
from dataset_builders.mixing.losses import loss_warnings
from dataset_builders.readers.building import LoadResult
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source
from dataset_builders.sources.rows import to_dataset

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "traces"
RUN = ASSETS / "verifiers-0.4.0.jsonl"
COMPACTED = ASSETS / "verifiers-0.4.0-compacted.jsonl"
RESULTS = ASSETS / "verifiers-0.1.14.jsonl"


def load(path: Path, **options: Any) -> LoadResult:
    """Read a source whose format is detected."""
    return load_source(resolve_source(SourceSpec(str(path), **options)))


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_run_of_verifiers() -> None:
    found = load(RUN)
    assert found.report.dropped == {"generation_error": 1}
    assert (
        "traces[0]: stop_condition: found 'provider_error' (ProviderError: upstream 400"
        in (found.report.samples["generation_error"][0])
    )
    assert [c.reward for c in found.conversations] == [1.0, 1.0, 0.0]
    first = found.conversations[0]
    assert (first.source, first.task, first.model) == ("verifiers", "clerk", "scripted")
    assert [(m.role, m.trained) for m in first.messages] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
        ("tool", False),
        ("assistant", True),
    ]
    call = first.messages[2]
    assert (call.reasoning, call.tool_calls[0].name) == ("The tool knows.", "clerk_stock")
    assert json.loads(call.tool_calls[0].arguments) == {"article": "A-17"}
    assert first.messages[3].tool_call_id == call.tool_calls[0].id
    assert json.loads(first.tools)[0]["function"]["name"] == "clerk_stock"
    assert found.report.to_dict()["rewards"] == {"count": 3, "mean": 2 / 3, "min": 0, "max": 1}
    assert "3 with a reward, mean 0.6667 (0 to 1)" in found.report.summary()


def test_a_result_of_vf_eval() -> None:
    found = load(RESULTS)
    assert found.report.dropped == {"generation_error": 1}
    assert "results" not in found.report.samples["generation_error"][0]
    assert "error: found ModelError" in found.report.samples["generation_error"][0]
    first = found.conversations[0]
    assert [m.trained for m in first.messages] == [False, False, True, False, True]
    assert first.messages[2].tool_calls[0].name == "stock"
    assert json.loads(first.tools)[0]["function"]["name"] == "stock"
    assert [c.reward for c in found.conversations] == [1.0, 1.0, 0.0]


def test_branches_of_a_compacted_trajectory() -> None:
    found = load(COMPACTED).conversations
    assert [c.where[-2:] for c in found] == [":1", ":1", ":2", ":2"]
    first, second = found[:2]
    assert first.id == f"{second.id.rpartition('/')[0]}/0"
    # The summary is the end of the first branch and the beginning of the second.
    summary = first.messages[-1]
    assert summary.trained
    assert summary.content in second.messages[1].content
    assert not second.messages[1].trained
    assert second.messages[-1].trained
    assert {c.reward for c in found} == {1.0}


def test_branches_are_not_split_between_training_and_holdout() -> None:
    datasets = pytest.importorskip("datasets")
    found = load(COMPACTED).conversations
    rows = datasets.Dataset.from_dict({"input_ids": [[number] for number in range(len(found))]})
    places = {"where": [c.where for c in found], "entry": np.zeros(len(found), np.int32)}
    kept, held = split_holdout(rows, make_index(places, len(found)), 1)
    assert len(held) == 1
    assert len(kept) == 2
    assert found[kept[0]].where == found[kept[1]].where != found[held[0]].where


def test_a_turn_that_two_branches_share_is_trained_once(tmp_path: Path) -> None:
    (episode,) = records(COMPACTED)[:1]
    nodes = episode["traces"][0]["nodes"]
    # The continuation branches off behind the first call and its result.
    assert nodes[6]["parent"] == 0
    nodes[6]["parent"] = 3
    found = load(written(tmp_path, episode))
    assert [sum(m.trained for m in c.messages) for c in found.conversations] == [2, 1]
    assert [len(c.messages) for c in found.conversations] == [6, 6]
    assert found.report.changed == {"shared_turns": 1}


def test_attempts_at_a_compaction(tmp_path: Path) -> None:
    (episode,) = records(COMPACTED)[:1]
    nodes = episode["traces"][0]["nodes"]
    nodes[5]["semantic_parents"] = [{"node": 2, "type": "compaction_attempt"}]
    found = load(written(tmp_path, episode))
    assert found.report.dropped == {"not_trainable": 1}
    assert "branch 0: found an attempt at a compaction" in found.report.samples["not_trainable"][0]
    nodes[7]["semantic_parents"] = [{"node": 5, "type": "compaction"}]
    assert len(load(written(tmp_path, episode)).conversations) == 2


def test_a_trace_on_its_own_and_a_pretty_printed_episode(tmp_path: Path) -> None:
    episode = records(RUN)[0]
    (one,) = load(written(tmp_path, episode["traces"][0])).conversations
    assert (one.task, one.reward) == ("ClerkTask", 1.0)
    path = tmp_path / "one.json"
    path.write_text(json.dumps(episode, indent=2))
    assert load(path).conversations[0].messages == one.messages


def exported(number: int, **changes: Any) -> dict[str, Any]:
    """A row as prime-rl's tools/convert_traces_to_hf_dataset.py writes it (August 2026)."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools = [{"type": "function", "name": "f", "description": "d", "parameters": {}}]
    return {
        "trace_id": "t",
        "env_id": "clerk",
        "env_name": None,
        "trainable": True,
        "tools": json.dumps(tools),
        "reward": 0.5,
        "is_completed": True,
        "stop_condition": "max_turns",
        "is_truncated": True,
        "error_type": None,
        "num_branches": 2,
        "branch_index": number,
        "messages": [
            {"role": "user", "content": f"q{number}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
            {"role": "assistant", "content": "a"},
        ],
    } | changes


def test_branches_that_prime_rl_exported(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "train.parquet"
    rows = [exported(0), exported(1), exported(0, trace_id="u", num_branches=1)]
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    found = load(path)
    assert [c.id for c in found.conversations] == ["t/0", "t/1", "u"]
    assert [c.where for c in found.conversations] == ["trace t", "trace t", "train.parquet:3"]
    assert {(c.task, c.reward) for c in found.conversations} == {("clerk", 0.5)}
    assert json.loads(found.conversations[0].tools)[0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stop_condition": "error", "error_type": "X"}, "generation_error 1; .*'error' .X."),
        ({"stop_condition": "sandbox_error"}, "generation_error 1"),
        ({"is_completed": False}, "unfinished 1; .*is_completed: found false"),
        ({"stop_condition": "agent_completed"}, "cut_turn 1; .*is_truncated"),
        ({"trainable": False}, "not_trainable 1"),
        ({"reward": "high"}, "bad_reward 1; .*reward: found 'high', expected a number"),
        ({"reward": float("nan")}, "bad_reward 1; .*reward: found nan"),
        ({"reward": {"a": 1}}, "bad_reward 1; .*reward: found {'a': 1}"),
        ({"tools": "x"}, "bad_tools 1; .*tools: not JSON"),
        ({"tools": [{"type": "web_search"}]}, "bad_tools 1; .*schema 0: found"),
        ({"messages": []}, "bad_messages 1; .*messages: found"),
        ({"messages": "x"}, "bad_messages 1; .*messages: found 'x'"),
    ],
)
def test_exported_rows_that_are_dropped(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=rf"traces.jsonl: none of 1 records can be used: {reason}"):
        load(written(tmp_path, exported(0, **changes)), format="verifiers")


def trace_of(episode: dict[str, Any]) -> dict[str, Any]:
    trace: dict[str, Any] = episode["traces"][0]
    return trace


def malformed_call(trace: dict[str, Any]) -> None:
    trace["nodes"][2]["message"]["tool_calls"][0]["arguments"] = '{"article": '


def custom_call(trace: dict[str, Any]) -> None:
    trace["nodes"][2]["message"]["tool_calls"][0]["type"] = "custom"


def two_parts(trace: dict[str, Any]) -> None:
    part = {"type": "text", "text": "a"}
    trace["nodes"][1]["message"]["content"] = [part, part]


def picture(trace: dict[str, Any]) -> None:
    trace["nodes"][1]["message"]["content"] = [{"type": "image_url", "image_url": {"url": "u"}}]


def cut(trace: dict[str, Any]) -> None:
    trace["calls"][1]["finish_reason"] = "length"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.update(nodes={}), "bad_trace 1; .*:1: traces.0.: nodes: found dict"),
        (lambda t: t.update(nodes=[]), "no_turns 1; .*nodes: found none"),
        (lambda t: t["nodes"][2].update(parent=9), "bad_trace 1; .*node 2: parent: found 9"),
        (lambda t: t["nodes"][2].update(message=None), "bad_trace 1; .*node 2: found"),
        (lambda t: t.update(rewards=1.0), "bad_reward 1; .*rewards: found 1.0, expected an obj"),
        (
            lambda t: t["rewards"]["correct"].update(score="1"),
            "bad_reward 1; .*rewards.correct.score: found '1', expected a number",
        ),
        (lambda t: t["rewards"].update(correct=[1]), "bad_reward 1; .*rewards.correct: found"),
        (lambda t: t["agent"].update(trainable=False), "not_trainable 1; .*agent.trainable"),
        (lambda t: t.update(is_completed=False), "unfinished 1"),
        (malformed_call, "bad_messages 1; .*message 2: tool_calls: arguments: not JSON"),
        (custom_call, "unsupported_field 1; .*message 2: tool_calls: type: found 'custom'"),
        (two_parts, "content_parts 1; .*message 1: content: found 2 parts"),
        (picture, "multimodal 1; .*message 1: content"),
        (cut, "cut_turn 1; .*message 4: finish_reason: found 'length'"),
    ],
)
def test_traces_that_are_dropped(tmp_path: Path, change: Any, reason: str) -> None:
    episode = records(RUN)[0]
    change(trace_of(episode))
    with pytest.raises(DataError, match=rf"none of 1 records can be used: {reason}"):
        load(written(tmp_path, episode), format="verifiers")


def test_a_truncated_file_loses_its_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(RUN.read_bytes()[:-400])
    found = load(path)
    assert found.report.dropped == {"generation_error": 1, "bad_json": 1}
    assert "the file ends inside this line" in found.report.samples["bad_json"][0]


def test_an_episode_without_a_trace_names_its_errors(tmp_path: Path) -> None:
    episode = records(RUN)[0] | {"traces": [], "errors": [{"type": "EnvError", "message": "m"}]}
    found = load(written(tmp_path, records(RUN)[1], episode))
    assert found.report.dropped == {"no_trace": 1}
    assert "errors: [{'type': 'EnvError'" in found.report.samples["no_trace"][0]


def test_min_reward(tmp_path: Path) -> None:
    unscored = records(RUN)[0]
    trace_of(unscored)["rewards"] = {"correct": None}
    path = written(tmp_path, *records(RUN), unscored)
    everything = load(path)
    assert everything.report.kept == 4
    assert everything.conversations[-1].reward is None
    found = load(path, min_reward=0.5)
    assert [c.reward for c in found.conversations] == [1.0, 1.0]
    assert found.report.dropped == {
        "generation_error": 1,
        "reward_below_threshold": 1,
        "no_reward": 1,
    }
    (sample,) = found.report.samples["reward_below_threshold"]
    assert sample == "traces.jsonl:4: reward: found 0, expected at least 0.5"
    specs = [SourceSpec(str(path), "verifiers", min_reward=m) for m in (None, 0.0, 0.5)]
    assert len({fingerprint(spec) for spec in specs}) == 3


def test_min_reward_of_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "reward": r} for r in (1, 0.25, "good", float("nan"))]
    path = written(tmp_path, *rows, {"messages": turns})
    assert [c.reward for c in load(path).conversations] == [1.0, 0.25, None, None, None]
    found = load(path, min_reward=1)
    assert found.report.kept == 1
    assert found.report.dropped == {
        "reward_below_threshold": 1,
        "bad_reward": 2,
        "no_reward": 1,
    }


def test_the_reward_is_a_column_and_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    found = load(RUN).conversations
    dataset = to_dataset(found)
    assert dataset["reward"] == [1.0, 1.0, 0.0]
    dataset.to_json(tmp_path / "rows.jsonl")
    again = load(tmp_path / "rows.jsonl").conversations
    assert [c.reward for c in again] == [1.0, 1.0, 0.0]
    assert again == found


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a value and each key or index of it."""
    found: list[tuple[Any, Any]] = []
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(item, dict | list):
            found += places(item)
    return found


JUNK = [None, True, -1, 0, 3, 1.5, float("nan"), "", "x", "\ud800", [], {}, [None], {"a": 1}]


def mutated(rng: Random) -> dict[str, Any]:
    episode = copy.deepcopy(rng.choice(records(COMPACTED) + records(RUN)))
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(places(episode["traces"][0]))
        if rng.random() < 0.3:
            del container[key]
        else:
            container[key] = rng.choice(JUNK)
    return episode


@settings(max_examples=40, deadline=None, database=None)
@given(st.integers(0, 2**64))
def test_every_branch_of_a_damaged_trace_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = Random(seed)
    episodes = [mutated(rng) for _ in range(20)]
    path = written(tmp_path_factory.mktemp("damaged"), *episodes, *records(RUN)[:1])
    report = load(path, format="verifiers").report
    assert report.read == report.kept + report.dropped.total() >= len(episodes) + 1
    assert all(reason.isidentifier() for reason in report.dropped)


def test_what_min_reward_drops_is_no_loss() -> None:
    report = {"agent": {"sources": [load(RUN, min_reward=1).report.to_dict()]}}
    (line,) = loss_warnings(report)
    assert "1 of 4 (25%) records cannot be used: generation_error 1" in line
