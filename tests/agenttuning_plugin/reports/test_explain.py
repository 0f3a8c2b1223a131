"""What `explain` says is what the trainer's sampler deals out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agenttuning_plugin.reports.explain import explain
from agenttuning_plugin.reports.rows import MIX, open_rows
from agenttuning_plugin.reports.segments import (
    decode_pieces,
    escape_invisible,
    message_text,
    one_line,
    shorten,
)
from agenttuning_plugin.training_data.built_mix import BuiltMix
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.manifest.store import Manifest, read_manifest, write_manifest
from dataset_builders.mixing.packed_order import Packing, pack_plan
from dataset_builders.mixing.planning import Plan

MakeRun = Callable[..., tuple[Any, BuiltMix]]
Run = Callable[..., tuple[int, str, str]]


def manifest_of(folder: Path, run: BuiltMix, rows: str | None = None) -> Manifest:
    write_manifest(folder, run.manifest, run.where({MIX: rows}))
    return read_manifest(folder)


def dealt(batch: Batch, rank: int, examples: int) -> Iterator[list[list[int]]]:
    """Micro-batches of each step of one process, by accelerate's own sampler."""
    data_loader = pytest.importorskip("accelerate.data_loader")
    from torch.utils.data import BatchSampler, SequentialSampler

    sampler = BatchSampler(SequentialSampler(range(examples)), batch.micro, drop_last=False)
    shard = data_loader.BatchSamplerShard(sampler, batch.world, rank, split_batches=False)
    batches = iter(shard)
    while step := list(islice(batches, batch.accumulation)):
        yield step


@pytest.mark.parametrize(
    "batch",
    [Batch(4), Batch(2, 3), Batch(2, 1, 3), Batch(2, 2, 2), Batch(1, 4, 4), Batch(3, 2, 4)],
    ids=lambda batch: f"{batch.micro}x{batch.accumulation}x{batch.world}",
)
def test_ranks_are_dealt_as_accelerate_deals(
    make_run: MakeRun, tmp_path: Path, batch: Batch
) -> None:
    examples = batch.size * 4
    manifest = manifest_of(tmp_path, make_run(num_examples=examples, batch=batch)[1])
    for rank in range(batch.world):
        steps = list(dealt(batch, rank, examples))
        assert len(steps) == 4
        for number, micro_batches in enumerate(steps):
            found = explain(manifest, number, rank=rank)
            assert {example.rank for example in found} == {rank}
            told: dict[int, list[int]] = {}
            for example in found:
                told.setdefault(example.micro_batch, []).append(example.position)
            assert [told[forward] for forward in sorted(told)] == micro_batches
    everyone = [example.position for example in explain(manifest, 2)]
    assert everyone == list(range(2 * batch.size, 3 * batch.size))


def test_exposures_count_what_came_before(make_run: MakeRun, tmp_path: Path) -> None:
    rows, mix = make_run(num_examples=400, batch=Batch(16))
    manifest = manifest_of(tmp_path, mix)
    seen: Counter[tuple[str, int]] = Counter()
    for step in range(25):
        for example in explain(manifest, step):
            seen[example.side, example.row] += 1
            assert example.exposure == seen[example.side, example.row]
            assert example.tokens == len(rows[example.position]["input_ids"])
            assert example.where == f"{example.side}.jsonl:{example.row + 1}"
            assert example.id == f"{example.side}-{example.row}"
    assert max(seen.values()) > 3


def test_packed_rows_are_told_by_their_positions(make_run: MakeRun, tmp_path: Path) -> None:
    _, mix = make_run(num_examples=200, batch=Batch(2, 1, 2))
    indices = mix.prepared.agent_index, mix.prepared.general_index
    longest = max(int(index["tokens"].to_numpy().max()) for index in indices)
    packing = Packing(capacity=2 * longest, batch=4, rows=60, window=24)
    made = pack_plan(mix.plan, *indices, packing, seed=5)
    packed = replace(mix, planned=made.planned, plan=made.plan, packing=packing)
    manifest = manifest_of(tmp_path, packed)
    bins = made.bins
    assert max(len(bins[number]) for number in range(60)) > 1
    seen: Counter[tuple[str, int]] = Counter()
    order: list[int] = []
    for step in range(15):
        found = explain(manifest, step)
        for example in found:
            seen[example.side, example.row] += 1
            assert example.exposure == seen[example.side, example.row]
            assert example.packed_row is not None
            assert example.position in bins[example.packed_row]
            assert example.rank == example.packed_row % 4 // 2
        order += [example.position for example in found]
    assert order == bins.positions.tolist()
    facts = packed.report["mix"]
    assert facts["examples"] == len(order)
    assert facts["agent_examples"] == sum(n for (side, _), n in seen.items() if side == "agent")
    with pytest.raises(ConfigError, match="expected 0 to 14: 60 packed rows in steps of 4"):
        explain(manifest, 15)


def test_what_cannot_be_told_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    _, mix = make_run(num_examples=90, batch=Batch(4, 1, 2))
    manifest = manifest_of(tmp_path, mix)
    assert len(explain(manifest, 11)) == 2  # the last step is not a whole one
    for arguments, words in [
        ({"step": 12}, "--step: found 12, expected 0 to 11: 90 examples in steps of 8"),
        ({"step": -1}, "--step: found -1"),
        ({"step": 0, "rank": 2}, "--rank: found 2, expected 0 to 1"),
        ({"step": 0, "batch_size": 9}, "--batch-size: found 9, but the run's was 8"),
    ]:
        with pytest.raises(ConfigError, match=words):
            explain(manifest, **arguments)
    (tmp_path / "data").mkdir()
    data = manifest_of(tmp_path / "data", make_run()[1])
    with pytest.raises(ConfigError, match="--batch-size: missing"):
        explain(data, 0)


def test_the_text_of_spans_is_the_text_that_is_trained(
    make_run: MakeRun, tmp_path: Path, small_tokenizer: Any
) -> None:
    rows, mix = make_run(batch=Batch(8))
    rows.save_to_disk(tmp_path)
    manifest = manifest_of(tmp_path, mix, rows=".")
    stored = open_rows(manifest)
    assert stored is not None
    for example in explain(manifest, 3):
        pieces = stored.pieces(example)
        assert pieces is not None
        row = rows[example.position]
        assert "".join(piece.text for piece in pieces) == small_tokenizer.decode(row["input_ids"])
        trained = [piece.text for piece in pieces if piece.trained]
        assert len(trained) == len(example.spans)
        assert all(text.startswith("said ") and text.endswith("<|im_end|>") for text in trained)
    (tmp_path / "state.json").unlink()
    assert open_rows(manifest) is None


@pytest.mark.parametrize("keep", [None, 0, 100, -1])
def test_damaged_rows_count_as_gone(
    run: Run, make_run: MakeRun, tmp_path: Path, keep: int | None
) -> None:
    rows, mix = make_run(num_examples=40)
    rows.save_to_disk(tmp_path)
    manifest = manifest_of(tmp_path, mix, rows=".")
    (data,) = tmp_path.glob("data-*.arrow")
    content = data.read_bytes()
    data.unlink()
    if keep is not None:
        data.write_bytes(content[: len(content) // 2 if keep < 0 else keep])
    assert open_rows(manifest) is None
    code, out, _ = run("explain", tmp_path, "--step", 2, "--batch-size", 4)
    assert code == 0
    assert "no text: the rows are no longer on this machine" in out


# The command


def test_a_built_folder_is_explained(run: Run, make_run: MakeRun, tmp_path: Path) -> None:
    rows, mix = make_run(Plan(eta=0.5, block=4), num_examples=40)
    rows.save_to_disk(tmp_path)
    manifest_of(tmp_path, mix, rows=".")
    code, out, _ = run("explain", tmp_path, "--step", 2, "--batch-size", 4)
    assert code == 0
    shown = explain(read_manifest(tmp_path), 2, batch_size=4)
    for example in shown:
        for words in (str(example.position), example.id, example.where, f"{example.tokens} tokens"):
            assert words in out
        for start, end in example.spans:
            assert f"[{start}, {end})" in out
    assert "said" in out
    assert "step 2: 4 examples, 2 of them agent data" in out
    told = json.loads(run("explain", tmp_path, "--step", 2, "--batch-size", 4, "--json")[1])
    assert [e["position"] for e in told["examples"]] == [8, 9, 10, 11]
    assert all("said" in text for e in told["examples"] for text in e["trained_text"])
    assert {e["exposure"] for e in told["examples"]} == {1}
    # Without the rows all but their text is still known.
    (tmp_path / "state.json").unlink()
    code, out, _ = run("explain", tmp_path, "--step", 2, "--batch-size", 4)
    assert code == 0
    assert shown[0].id in out
    assert "said" not in out
    assert "no longer on this machine" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--step", "10", "--batch-size", "4"], "--step: found 10, expected 0 to 9"),
        (["--step", "0"], "--batch-size: missing"),
        (["--step", "0", "--batch-size", "4", "--rank", "1"], "--rank: found 1"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run, make_run: MakeRun, tmp_path: Path, options: list[str], words: str
) -> None:
    manifest_of(tmp_path, make_run(num_examples=40)[1])
    code, _, err = run("explain", tmp_path, *options)
    assert code == 1
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert words in err
    code, _, err = run("explain", tmp_path / "nowhere", "--step", 0)
    assert code == 1
    assert "manifest.json: no such file" in err


# Pieces of text


def test_pieces_keep_blanks_that_a_decoder_drops(llama2_tokenizer: Any) -> None:
    text = "<s>[INST] Guten Tag [/INST] 你好 🙂 friend </s>"
    ids = llama2_tokenizer(text, add_special_tokens=False)["input_ids"]
    spans = [(i, i + 2) for i in range(1, len(ids) - 2, 4)]
    pieces = decode_pieces(ids, spans, llama2_tokenizer.decode)
    assert [piece.trained for piece in pieces if piece.trained] == [True] * len(spans)
    # Characters of several tokens may be cut; all that is whole is there, blanks included.
    whole = [(0, len(ids) // 2)]
    assert "".join(p.text for p in decode_pieces(ids, whole, llama2_tokenizer.decode)) == (
        llama2_tokenizer.decode(ids)
    )


def test_tool_calls_are_part_of_what_a_message_says() -> None:
    calls = [{"id": "", "type": "function", "function": {"name": "f", "arguments": "é"}}]
    told = json.dumps(calls, ensure_ascii=False)
    assert message_text({"content": "", "tool_calls": calls}) == told
    assert message_text({"content": "a", "tool_calls": calls}) == f"a\n{told}"
    assert message_text({"content": "a", "tool_calls": []}) == "a"
    assert message_text({"content": "a"}) == "a"


def test_hidden_characters_are_shown() -> None:
    text = "a\u202eb\u200b\x1b[31m\n\ttab"
    assert list(escape_invisible(text)) == [
        ("a", False), ("U+202E", True), ("b", False), ("U+200B", True), ("U+001B", True),
        ("[31m\n\ttab", False),
    ]  # fmt: skip
    assert one_line(text, 100) == "a⟨U+202E⟩b⟨U+200B⟩⟨U+001B⟩[31m⏎ tab"
    assert shorten("x" * 10, 10) == "x" * 10
    cut_short = shorten("y" * 10_000_000, 100)
    assert "9,999,900 characters" in cut_short
    assert len(cut_short) < 140
