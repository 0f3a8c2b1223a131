from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message, ToolCall, from_row
from dataset_builders.errors import ConfigError, DataError, SourceNotFoundError
from dataset_builders.formats import sharegpt
from dataset_builders.readers.report import SourceReport
from dataset_builders.sources.loading import SourceSpec, fingerprint, load_source
from dataset_builders.sources.rows import to_dataset

GOOD = {
    "id": "db_1",
    "conversations": [
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a", "loss": True},
    ],
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_messages_source(tmp_path: Path) -> None:
    untrained = [{"role": "user", "content": "q"}]
    path = write(tmp_path / "mine.jsonl", GOOD, {"messages": untrained}, {"messages": 3}, 1)
    result = load_source(SourceSpec(path, "messages"))
    assert [item.source for item in result.conversations] == ["mine"]
    assert result.report.dropped == {"bad_messages": 1, "no_trained_turn": 1, "not_an_object": 1}
    (sample,) = result.report.samples["bad_messages"]
    assert sample == "mine.jsonl:3: messages: found int, expected a list"


def test_limit_takes_the_first_kept(tmp_path: Path) -> None:
    rows = [{**GOOD, "id": f"db_{n}"} for n in range(5)]
    path = write(tmp_path / "a.jsonl", 1, *rows)
    result = load_source(SourceSpec(path, "agentinstruct", limit=2))
    assert [item.id for item in result.conversations] == ["db_0", "db_1"]
    assert result.report.limited
    assert "stopped at the limit" in result.report.summary()
    assert not load_source(SourceSpec(path, "agentinstruct", limit=5)).report.limited


def test_progress(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[GOOD] * 2001)
    seen: list[int] = []
    load_source(SourceSpec(path, "sharegpt"), seen.append)
    assert seen == [1000, 2000, 2001]


def test_errors(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", GOOD)
    with pytest.raises(ConfigError, match=r"format: found 'csv', input should be 'agentinstruct'"):
        load_source(SourceSpec(good, "csv"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="format: found None, expected one of"):
        fingerprint(SourceSpec(good))
    with pytest.raises(ConfigError, match="limit: found 0, input should be greater"):
        load_source(SourceSpec(good, "messages", limit=0))
    with pytest.raises(ConfigError, match="no split z; found good"):
        load_source(SourceSpec(good, "messages", splits=("z",)))
    with pytest.raises(SourceNotFoundError, match="no such file"):
        fingerprint(SourceSpec(str(tmp_path / "none.jsonl"), "messages"))
    empty = write(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match=r"messages:.*empty\.jsonl: found no record"):
        load_source(SourceSpec(empty, "messages"))
    lost = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    path = write(tmp_path / "lost.jsonl", lost, lost, {})
    with pytest.raises(DataError) as caught:
        load_source(SourceSpec(path, "agentinstruct"))
    text = str(caught.value)
    assert "none of 3 records can be used: loss_missing 2, no_turns 1; for example" in text
    assert "lost.jsonl:1: turn 1: loss: found nothing on a gpt turn" in text


def test_fingerprint_covers_content_and_options(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", GOOD)
    path = str(tmp_path)
    specs = [
        SourceSpec(path, "messages"),
        SourceSpec(path, "sharegpt"),
        SourceSpec(path, "messages", limit=1),
        SourceSpec(path, "messages", splits=("a",)),
        SourceSpec(path, "messages", data_files=("b*",)),
        SourceSpec(str(tmp_path / "a.jsonl"), "sharegpt"),
    ]
    found = [fingerprint(spec) for spec in specs]
    assert len(set(found)) == len(specs)
    assert [fingerprint(spec) for spec in specs] == found
    write(tmp_path / "b.jsonl", GOOD, GOOD)
    assert fingerprint(specs[0]) != found[0]
    assert fingerprint(specs[3]) == found[3]


def test_default_file_of_the_sharegpt_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def refuse(**options: Any) -> str:
        asked.update(options)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(SourceNotFoundError):
        load_source(SourceSpec(sharegpt.HUB_ID, "sharegpt"))
    assert asked["allow_patterns"] == ["ShareGPT_V3_unfiltered_cleaned_split.json"]


def test_dataset_columns(tmp_path: Path) -> None:
    from datasets import List, Value

    plain = Conversation.create(
        [Message("user", "u"), Message("assistant", "a", trained=True)], id="1", source="s"
    )
    call = ToolCall("f", '{"a": 1}', "c")
    tools = Conversation.create(
        [
            Message("user", "u"),
            Message("assistant", "", trained=True, tool_calls=(call,)),
            Message("tool", "r", tool_call_id="c"),
        ]
    )
    text = Value("string")
    fields = {"role": text, "content": text, "train": Value("bool")}
    data = to_dataset([plain] * 1001)
    assert data.features["messages"] == List(fields)
    assert list(data.features) == ["id", "source", "task", "messages"]
    assert data.num_rows == 1001
    assert set(data[0]["messages"][0]) == {"role", "content", "train"}
    both = to_dataset([plain, tools])
    assert [from_row(row) for row in both] == [plain, tools]
    assert to_dataset([]).features == data.features
    schema = '[{"type": "function", "function": {"name": "f"}}]'
    named = Conversation.create(plain.messages, tools=schema, model="gpt-4", where="x:1")
    for extra, name in ((replace(named, model=""), "tools"), (replace(named, tools=""), "model")):
        rows = to_dataset([plain, extra])
        assert list(rows.features) == ["id", "source", "task", "messages", name]
        assert [from_row(row) for row in rows] == [plain, extra]
    rows = to_dataset([named, tools])
    assert rows["tools"][:] == [schema, ""]
    assert rows["model"][:] == ["gpt-4", ""]
    both.to_parquet(str(tmp_path / "x.parquet"))
    again = load_source(SourceSpec(str(tmp_path / "x.parquet"), "messages"))
    assert [item.messages for item in again.conversations] == [plain.messages, tools.messages]


def test_real_dataset_round_trip(shared: Path) -> None:
    spec = SourceSpec(str(shared / "data/agentinstruct_hub"), "agentinstruct")
    built = load_source(spec).conversations
    assert [from_row(row) for row in to_dataset(built)] == built


def test_report() -> None:
    report = SourceReport("x")
    for n in range(5):
        report.read += 1
        report.drop("bad", f"a.jsonl:{n}", "found\x1b\n\ud800" + "y" * 1000)
    report.read += 1
    report.keep({"step": 2, "other": 0})
    report.check()
    assert report.to_dict()["dropped"] == {"bad": 5}
    assert report.changed == {"step": 2}
    assert len(report.samples["bad"]) == 3
    assert report.samples["bad"][0].isprintable()
    assert len(report.samples["bad"][0]) < 400
    report.lost += ["hole"] * 5
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.summary() == (
        "x: kept 1 of 6 records; dropped bad 5; turns repaired: step 2; "
        "damage: hole; hole; hole; 2 more places"
    )
    report.read += 1
    with pytest.raises(DataError, match=r"7 records read, but 1 kept and 5 dropped: \+1 unacc"):
        report.check()


def test_import_is_light() -> None:
    script = (
        "import sys, dataset_builders as d; assert not hasattr(d, 'nothing'); d.load_source; "
        "print([m for m in ('datasets', 'pyarrow', 'huggingface_hub', 'numpy', 'torch', "
        "'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_can_be_imported() -> None:
    import dataset_builders

    assert set(dataset_builders.__all__) <= set(dir(dataset_builders))
    for name in dataset_builders.__all__:
        assert getattr(dataset_builders, name) is not None
