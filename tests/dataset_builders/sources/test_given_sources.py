"""What users name as a source: splits, saved data sets, rows in memory, odd layouts of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders import build_mix
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.readers.building import LoadResult
from dataset_builders.readers.files import locate
from dataset_builders.sources.inputs import read_source, resolve_evaluation_source, resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source

datasets = pytest.importorskip("datasets")


def row(text: str = "a", **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    return {"messages": turns, **fields}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in rows))
    return path


def load(path: Path, *splits: str) -> LoadResult:
    return load_source(resolve_source(SourceSpec(str(path), splits=splits)))


def answers(result: LoadResult) -> list[str]:
    return [item.messages[-1].content for item in result.conversations]


@pytest.mark.parametrize(
    ("names", "read", "left_out"),
    [
        (["train.jsonl", "test.jsonl"], ["train"], ["test"]),
        (["train_sft.jsonl", "test_sft.jsonl", "test_gen.jsonl"], ["train_sft"],
         ["test_gen", "test_sft"]),
        (["data/train-00000-of-00001.jsonl", "data/validation-00000-of-00001.jsonl"],
         ["train"], ["validation"]),
        (["db.jsonl", "os.jsonl", "latest.jsonl"], ["db", "latest", "os"], []),
        # Whoever names a folder of nothing else means it.
        (["test.jsonl", "dev.jsonl"], ["dev", "test"], []),
    ],
)  # fmt: skip
def test_evaluation_splits_are_not_trained_on_unless_named(
    tmp_path: Path, names: list[str], read: list[str], left_out: list[str]
) -> None:
    for name in names:
        split = Path(name).name.removesuffix(".jsonl").removesuffix("-00000-of-00001")
        write(tmp_path / name, row(split))
    result = load(tmp_path)
    assert answers(result) == read
    assert [line.split(":")[0] for line in result.report.unread] == [
        f"split {name}" for name in left_out
    ]
    for line in result.report.unread[:3]:
        assert line in result.report.summary()
    if left_out:
        assert answers(load(tmp_path, *left_out)) == left_out
    pattern = "data/*" if names[0].startswith("data/") else "*"
    spec = SourceSpec(str(tmp_path), data_files=(pattern,))
    assert len(load_source(resolve_source(spec)).conversations) == len(names)


def test_measuring_takes_the_splits_for_evaluation(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / "both" / f"{name}.jsonl", row(name))
        write(tmp_path / "one" / f"{name}_only.jsonl", row(name))
    (tmp_path / "one/test_only.jsonl").unlink()
    assert answers(load_source(resolve_evaluation_source(tmp_path / "both"))) == ["test"]
    assert answers(load_source(resolve_evaluation_source(tmp_path / "one"))) == ["train"]
    named = SourceSpec(str(tmp_path / "both"), splits=("train",))
    assert answers(load_source(resolve_evaluation_source(named))) == ["train"]


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    rows = [row(f"a{number}") for number in range(3)]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "one")
    assert answers(load(tmp_path / "one")) == ["a0", "a1", "a2"]
    parts = {"train": data, "test": datasets.Dataset.from_list([row("t")])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "several")
    result = load(tmp_path / "several")
    assert answers(result) == ["a0", "a1", "a2"]
    assert result.report.unread[0].startswith("split test: not read")
    assert answers(load(tmp_path / "several", "test")) == ["t"]
    with pytest.raises(ConfigError, match="no split x; found train, test"):
        load(tmp_path / "several", "x")
    with pytest.raises(ConfigError, match="splits: found test, expected train"):
        load(tmp_path / "one", "test")
    # What is not trained on is read whole, such as a benchmark that training data is compared with.
    assert len(locate(str(tmp_path / "several"), all_splits=True).files) == 2
    tokens = datasets.Dataset.from_list([{"input_ids": [1], "labels": [1]}])
    tokens.save_to_disk(tmp_path / "tokens")
    with pytest.raises(DataError, match="input_ids: the rows are tokens already"):
        load(tmp_path / "tokens")
    (tmp_path / "one/data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"one: found no data-00000-of-00001\.arrow"):
        load(tmp_path / "one")


def test_a_mix_that_was_built_is_no_source(tmp_path: Path) -> None:
    from agenttuning_plugin.training_data.build import build_to_disk
    from dataset_builders.mixing.planning import Plan

    source = write(tmp_path / "a.jsonl", row())
    build_to_disk(
        tmp_path / "mix", agent=[str(source)], general=[], plan=Plan(1.0), num_examples=2, seed=0
    )
    with pytest.raises(DataError, match="mix: found a mix that agenttuning build made"):
        load(tmp_path / "mix")


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "string"}}}}


def call(**arguments: Any) -> dict[str, Any]:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "r", "tool_call_id": "c"},
        {"role": "assistant", "content": "a"},
    ]
    return {"messages": turns, "tools": [TOOL]}


def test_json_columns_of_files_and_datasets(tmp_path: Path) -> None:
    # Objects of too many kinds: recent versions of `datasets` infer columns of JSON for them.
    rows = [call(x=1), call(x="two", y=[None, 3]), call(x=None)]
    path = write(tmp_path / "a.jsonl", *rows)
    data = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert "Json" in repr(data.features)
    data.to_parquet(tmp_path / "b.parquet")
    data.save_to_disk(tmp_path / "saved")
    expected = load(path).conversations
    assert [item.messages[1].tool_calls[0].arguments for item in expected] == [
        '{"x": 1}', '{"x": "two", "y": [null, 3]}', '{"x": null}',
    ]  # fmt: skip
    found = [
        load(tmp_path / "b.parquet").conversations,
        load(tmp_path / "saved").conversations,
        list(read_source(data, "agent", None)[0]),
        list(read_source(data.to_iterable_dataset(), "agent", None)[0]),
        list(read_source(rows, "agent", None)[0]),
    ]
    for conversations in found:
        assert [(item.messages, item.tools) for item in conversations] == [
            (item.messages, item.tools) for item in expected
        ]


def test_turns_in_other_layouts_are_understood(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {"from": ["human", "gpt"], "value": ["A question in English?", "An answer."]}
    pq.write_table(pa.table({"conversations": [lists]}), tmp_path / "lists.parquet")
    assert answers(load(tmp_path / "lists.parquet")) == ["An answer."]
    turns = row()["messages"]
    for number, messages in enumerate(
        (json.dumps(turns), [json.dumps(turn) for turn in turns], {"role": ["user", "assistant"],
         "content": ["q", "a"]})
    ):  # fmt: skip
        assert answers(load(write(tmp_path / f"{number}.jsonl", {"messages": messages}))) == ["a"]
    for uneven in ({"role": ["user"], "content": ["q", "a"]}, {"role": "user"}, "[1", ["x"], 3):
        with pytest.raises(DataError, match="bad_messages 1"):
            load(write(tmp_path / "b.jsonl", {"messages": uneven}))


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_may_be_named_json_lines(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps([row("a"), row("b")], indent=indent))
    assert answers(load(path)) == ["a", "b"]


def test_json_lines_may_begin_with_a_damaged_line(tmp_path: Path) -> None:
    for first in ("[1, 2", "[]", '[{"a": 1},'):
        path = tmp_path / "a.jsonl"
        path.write_text(f"{first}\n{json.dumps(row('a'))}\n{json.dumps(row('b'))}\n")
        result = load(path)
        assert (answers(result), result.report.read) == (["a", "b"], 3)
    path.write_text(f"[{json.dumps(row('a'))},\n{json.dumps(row('b'))}\n]\n")
    assert answers(load(path)) == ["a", "b"]


def test_conversations_that_come_again_are_counted(tmp_path: Path) -> None:
    other = row(id="x")
    other["messages"][1]["train"] = True
    masked = row(id="y")
    masked["messages"] = [*masked["messages"], *row()["messages"]]
    result = load(write(tmp_path / "a.jsonl", row(id="x"), other, masked))
    assert (result.report.kept, result.report.repeated) == (3, 1)
    assert "1 the same as an earlier one" in result.report.summary()


def dataset(*rows: Any) -> Any:
    return datasets.Dataset.from_list(list(rows))


def tokens(*lengths: int) -> list[dict[str, Any]]:
    return [
        {"input_ids": [5] * size, "labels": [-100, *[5] * (size - 1)], "attention_mask": [1] * size}
        for size in lengths
    ]


def make(tokenizer: Any, agent: Any, general: Any = None, **settings: Any) -> Any:
    eta = settings.pop("eta", 1 if general is None else 0.5)
    common = {"num_examples": 6, "max_length": 100, "tokenizer": tokenizer, "gpt4_share": None}
    return build_mix(agent, general, eta=eta, **(common | settings))


@pytest.mark.parametrize(
    "given",
    [
        dataset(row("a"), row("b")).to_iterable_dataset(),
        [row("a"), row("b")],
        [dataset(row("a")), dataset(row("b"))],
        [dataset(row("a")).to_iterable_dataset(), dataset(row("b"))],
        [{"conversations": row(text)["messages"]} for text in "ab"],
        [{"prompt": "q", "completion": text} for text in "ab"],
        dataset(*({"instruction": "q", "output": text} for text in "ab")),
    ],
    ids=["streaming", "dicts", "datasets", "mixed", "conversations", "pairs", "alpaca"],
)
def test_rows_in_memory(small_tokenizer: Any, given: Any) -> None:
    mix = make(small_tokenizer, given)
    ends = {small_tokenizer.decode(item["input_ids"]).split("assistant\n")[-1][0] for item in mix}
    assert ends == {"a", "b"}
    texts = make(None, given)
    assert {item["messages"][-1]["content"] for item in texts} == {"a", "b"}
    assert all(item["messages"][-1]["train"] for item in texts)


@pytest.mark.parametrize(
    "columns", [("input_ids", "labels"), ("input_ids", "labels", "attention_mask")]
)
def test_token_rows_stand_beside_text(small_tokenizer: Any, columns: tuple[str, ...]) -> None:
    given = dataset(*tokens(3, 4)).select_columns(list(columns))
    given = given.add_column("id", ["x", "y"])
    mix = make(small_tokenizer, dataset(row()), given)
    assert str(mix.features["input_ids"].feature.dtype) == "int32"
    found = [item for item in mix if item["input_ids"][0] == 5]
    assert {len(item["input_ids"]) for item in found} == {3, 4}
    for item in found:
        assert item["attention_mask"] == [1] * len(item["input_ids"])
        assert item["labels"] == [-100, *[5] * (len(item["input_ids"]) - 1)]


def test_token_rows_are_no_longer_than_asked_for(small_tokenizer: Any) -> None:
    given = dataset(*tokens(3, 500, 100))
    assert {len(item["input_ids"]) for item in make(small_tokenizer, given)} == {3, 100}
    cut = make(small_tokenizer, given, policy="truncate", max_length=50)
    assert {len(item["input_ids"]) for item in cut} == {3, 50}
    with pytest.raises(DataError, match="agent: row 1: found 500 tokens, expected at most 100"):
        make(small_tokenizer, given, policy="raise")
    with pytest.raises(DataError, match="dropped 1 too_long"):
        make(small_tokenizer, dataset(*tokens(500)))


@pytest.mark.parametrize(
    ("given", "settings", "error", "message"),
    [
        (dataset(*tokens(3)).to_iterable_dataset(), {}, DataError, "streaming dataset of tokens"),
        (dataset(*tokens(3)), {"tokenizer": None}, DataError, "found rows of tokens"),
        ([dataset(*tokens(3)), dataset(row())], {}, DataError, "agent 0: found rows of tokens"),
        (datasets.DatasetDict({"train": dataset(row())}), {}, DataError,
         r"found a DatasetDict of train, expected one dataset, such as \['train'\]"),
        ([{"text": "x"}], {}, DataError, "agent: row 0: columns: found text, expected messages"),
        ([row(), 3], {}, DataError, "agent: row 1: found int, expected a row"),
        ([row(label=False)], {}, DataError, "agent: row 0: label: found false"),
        (3, {}, DataError, "agent: found int, expected a path"),
        ([row()], {"eta": "0.2"}, ConfigError, "eta: found '0.2', expected a number"),
        ([row()], {"eta": [0.2]}, ConfigError, r"eta: found \[0.2\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_source_is_named(
    small_tokenizer: Any, given: Any, settings: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        make(settings.pop("tokenizer", small_tokenizer), given, **settings)
