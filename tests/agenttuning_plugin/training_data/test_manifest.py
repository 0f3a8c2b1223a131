"""A manifest rebuilds the stream, tells when it cannot, and is the same for the same inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agenttuning_plugin.training_data.built_mix import BuiltMix
from dataset_builders.encoding.row_index import make_index
from dataset_builders.errors import AgentTuningError, DataError, SourceNotFoundError
from dataset_builders.manifest.orders import order_of, order_record
from dataset_builders.manifest.records import SPANS, Batch, hash_of
from dataset_builders.manifest.store import (
    INDEX_FILES,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    read_manifest,
    write_manifest,
)
from dataset_builders.manifest.surveys import survey_rows, trained_ranges
from dataset_builders.mixing.eta_schedule import QuotaStage
from dataset_builders.mixing.order import MixOrder, Pool
from dataset_builders.mixing.planning import Plan

MakeRun = Callable[..., tuple[Any, BuiltMix]]


def written(folder: Path, run: BuiltMix, where: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, run.manifest, run.where(where or {}))
    return folder


# The order


@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=40),
    weights=st.lists(st.floats(0.1, 9), min_size=4, max_size=4),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    mode=st.sampled_from(["stratified", "iid"]),
    seed=st.integers(-(2**40), 2**70),
    block=st.integers(1, 80),
    column=st.sampled_from(["task", "model", "source"]),
)
@settings(max_examples=60, deadline=None)
def test_an_order_comes_back_from_json(
    labels: list[str],
    weights: list[float],
    shares: list[float],
    mode: Any,
    seed: int,
    block: int,
    column: str,
) -> None:
    index = make_index({column: labels}, len(labels))
    values = np.array(labels)
    pools = tuple(
        Pool(np.flatnonzero(values == label), weight)
        for label, weight in zip(sorted(set(labels)), weights, strict=False)
    )
    stages = tuple(QuotaStage(i * 17, share) for i, share in enumerate(shares))
    order = MixOrder(
        len(labels), len(labels), stages, seed, 60, block, mode,
        agent_pools=pools, general_pools=pools[:1],
    )  # fmt: skip
    record = json.loads(json.dumps(order_record(order, index, index)))
    again = order_of(record, index, index)
    assert (again.indices() == order.indices()).all()
    # A pool is named by its labels, not listed row by row.
    assert all("labels" in pool for pool in record["agent_pools"])


def test_pools_that_no_column_tells_apart_are_listed() -> None:
    index = make_index({}, 10)
    pools = (Pool(np.array([7, 1, 4]), 1.0), Pool(np.array([0, 2]), 3.0))
    order = MixOrder(10, 0, 1.0, 1, 50, agent_pools=pools)
    record = json.loads(json.dumps(order_record(order, index, None)))
    assert record["agent_pools"][0]["numbers"] == [7, 1, 4]
    assert (order_of(record, index, None).indices() == order.indices()).all()


def test_another_index_or_another_draw_is_told(make_run: MakeRun) -> None:
    _, run = make_run(Plan(eta=0.25, task_weights={"os": 1, "db": 2, "alfworld": 1}, block=8))
    agent, general = run.prepared.agent_index, run.prepared.general_index
    assert agent is not None
    record = order_record(run.planned.order, agent, general)
    shifted = agent.set_column(2, "task", agent["task"].take(np.roll(np.arange(30), 1)))
    with pytest.raises(DataError, match=r"agent pool \['alfworld'\]"):
        order_of(record, shifted, general)
    with pytest.raises(DataError, match="not those that were drawn"):
        order_of({**record, "seed": 8}, agent, general)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(eta=0.25, block=8),
        Plan(eta=0.25, block=8, mode="iid"),
        Plan(eta=(QuotaStage(0, 0.1), QuotaStage(40, 0.6)), block=8),
        Plan(eta=0.3, block=8, task_weights={"os": 1, "db": 2.5, "alfworld": 0}),
        Plan(eta=0.3, unit="trained_token", block=8),
        Plan(eta=1.0, block=8),
        Plan(eta=0.0, block=8, gpt4_share=None),
    ],
    ids=["plain", "iid", "stages", "tasks", "trained tokens", "agent only", "general only"],
)
def test_a_manifest_rebuilds_the_stream(make_run: MakeRun, tmp_path: Path, plan: Plan) -> None:
    rows, run = make_run(plan)
    manifest = read_manifest(written(tmp_path, run))
    order = manifest.order
    assert (order.indices() == run.planned.order.indices()).all()
    # By its own hand, from index and order: the rows that the trainer was given.
    agent, row = order.rows(np.arange(order.num_examples))
    for position in range(order.num_examples):
        side = "agent" if agent[position] else "general"
        facts = manifest.indices[side].slice(int(row[position]), 1).to_pylist()[0]
        labels = rows[position]["labels"]
        assert facts["tokens"] == len(labels)
        borders = facts[SPANS]
        covered = set[int]().union(
            *(range(a, b) for a, b in zip(borders[::2], borders[1::2], strict=True))
        )
        assert covered == {i for i, label in enumerate(labels) if label != -100}


# Spans and hashes


@given(st.lists(st.lists(st.sampled_from([-100, 5]), max_size=9), max_size=30))
def test_ranges_are_those_of_the_labels(rows: list[list[int]]) -> None:
    import pyarrow as pa

    found = trained_ranges(pa.array(rows, pa.list_(pa.int32()))).to_pylist()
    assert len(found) == len(rows)
    for row, borders in zip(rows, found, strict=True):
        covered = [False, *(label != -100 for label in row), False]
        assert borders == [i for i in range(len(row) + 1) if covered[i] != covered[i + 1]]


def test_a_hash_is_the_contents_not_the_storages() -> None:
    from datasets import Dataset, concatenate_datasets

    rows = Dataset.from_dict({"input_ids": [[1, 2], [3], []], "labels": [[-100, 2], [3], []]})
    parts = concatenate_datasets([rows.select([0]), rows.select([1, 2])])
    backwards = rows.select([2, 1, 0]).select([2, 1, 0])
    assert survey_rows(rows).sha256 == survey_rows(parts).sha256 == survey_rows(backwards).sha256
    assert survey_rows(rows.select([1, 0, 2])).sha256 != survey_rows(rows).sha256
    moved = Dataset.from_dict({"input_ids": [[1], [2, 3], []], "labels": [[-100], [2, 3], []]})
    assert survey_rows(moved).sha256 != survey_rows(rows).sha256
    text = Dataset.from_dict({"messages": [[{"role": "user", "content": "é"}], []]})
    assert survey_rows(text).sha256 != survey_rows(text.select([1, 0])).sha256
    assert survey_rows(text).spans.to_pylist() == [[], []]


# Files


def test_two_manifests_of_the_same_mix_differ_in_where_only(
    make_run: MakeRun, tmp_path: Path
) -> None:
    one = written(tmp_path / "one", make_run()[1], {"mix": "here"})
    two = written(tmp_path / "two", make_run()[1], {"mix": "there"})
    contents = [json.loads((folder / MANIFEST_FILE).read_text()) for folder in (one, two)]
    assert contents[0].pop("where") != contents[1].pop("where")
    assert contents[0] == contents[1]
    for name in (*INDEX_FILES.values(), TOKENIZER_FILE):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    other = written(tmp_path / "other", make_run(seed=8)[1])
    assert read_manifest(other).content["sha256"] != contents[0]["sha256"]
    said = written(tmp_path / "said", make_run(said="told")[1])
    assert read_manifest(said).content["agent"]["sha256"] != contents[0]["agent"]["sha256"]


def test_a_manifest_says_what_decides_on_the_stream(make_run: MakeRun, tmp_path: Path) -> None:
    _, run = make_run(batch=Batch(2, 3, 4))
    manifest = read_manifest(written(tmp_path, run))
    content = manifest.content
    versions = {"agenttuning-plugin", "datasets", "numpy", "pyarrow", "tokenizers", "transformers"}
    assert versions < set(content["versions"])
    text = run.tokenizer.backend_tokenizer.to_str()
    assert content["tokenizer"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert content["tokenizer"]["eos"] == "<|im_end|>"
    assert manifest.batch == Batch(2, 3, 4)
    assert manifest.batch.size == 24
    assert content["wanted"]["eta"] == 0.25
    assert manifest.tokenizer().to_str() == text


def damaged(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps({**content, **changes}))


def resigned(folder: Path, **changes: Any) -> None:
    """A manifest of another make, whose own hash fits."""
    damaged(folder, **changes)
    content = json.loads((folder / MANIFEST_FILE).read_text())
    rest = {key: value for key, value in content.items() if key not in ("sha256", "where")}
    damaged(folder, sha256=hash_of(rest))


@pytest.mark.parametrize(
    ("break_it", "error", "words"),
    [
        (lambda f: (f / MANIFEST_FILE).unlink(), SourceNotFoundError, "no such file; expected a"),
        (lambda f: (f / MANIFEST_FILE).write_text('{"a'), DataError, "not readable as JSON"),
        (lambda f: (f / MANIFEST_FILE).write_bytes(b"\xff"), DataError, "not readable as JSON"),
        (lambda f: (f / MANIFEST_FILE).write_text("[]"), DataError, "schema: found None"),
        (lambda f: resigned(f, schema=99), DataError, "schema: found 99, expected 1"),
        (lambda f: damaged(f, encoding=None), DataError, "changed after it was written"),
        (lambda f: damaged(f, where=None), DataError, "changed after it was written"),
        (lambda f: resigned(f, order={}), DataError, "order: found no 'num_agent'"),
        (lambda f: (f / "agent_index.parquet").unlink(), DataError, "missing; the manifest"),
        (lambda f: (f / "general_index.parquet").write_bytes(b"x"), DataError, "damaged or"),
        (lambda f: (f / TOKENIZER_FILE).write_text("{}"), DataError, "damaged or changed"),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(
    make_run: MakeRun,
    tmp_path: Path,
    break_it: Callable[[Path], Any],
    error: type[AgentTuningError],
    words: str,
) -> None:
    folder = written(tmp_path, make_run()[1])
    break_it(folder)

    def use() -> None:
        manifest = read_manifest(folder)
        _ = manifest.order
        manifest.tokenizer()

    with pytest.raises(error, match=words) as caught:
        use()
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
