"""The options of a source that decide its rows, from a recipe's section to the run's rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin import AgentTuningConfig
from agenttuning_plugin.preflight.data import Side, check_data, check_sample
from agenttuning_plugin.training_data.cache import cache_key
from agenttuning_plugin.training_data.run import TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders import build_mix
from dataset_builders.errors import ConfigError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec
from tests.support.thinking_template import DROPS_REASONING

ENCODING = Encoding(max_length=512, holdout=3)
Run = Callable[..., tuple[int, str, str]]


def write(path: Path, name: str, count: int, turns: int) -> str:
    lines = []
    for number in range(count):
        messages: list[dict[str, str]] = []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"ask {name} {number} {turn}"})
            said = {"content": f"say {name} {number} {turn}", "reasoning_content": f"muse{turn}"}
            messages.append({"role": "assistant", **said})
        lines.append(json.dumps({"id": f"{name}{number}", "messages": messages}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    return {
        "agent": write(tmp_path / "agent.jsonl", "agent", 4, 3),
        "general": write(tmp_path / "general.jsonl", "chat", 12, 2),
    }


@pytest.fixture(scope="module")
def thinking(small_tokenizer: Any) -> Any:
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.chat_template = DROPS_REASONING
    return tokenizer


def training_run(
    data: dict[str, str], tokenizer: Any, cache: Path, packed: int | None = None, **agent: Any
) -> TrainingRun:
    config = AgentTuningConfig(agent={"path": data["agent"], **agent}, general=data["general"])
    settings = RunSettings(ENCODING, Batch(4), 5, 1, cache, packed)
    return TrainingRun(config, tokenizer, settings)


def trained(tokenizer: Any, rows: Any) -> set[str]:
    return {tokenizer.decode([i for i in row["labels"] if i >= 0]) for row in rows}


def agent_rows(run: TrainingRun) -> Any:
    rows = run.prepared.agent
    assert rows is not None
    return rows


def test_a_run_trains_what_inference_shows_by_default(
    data: dict[str, str], thinking: Any, tmp_path: Path
) -> None:
    run = training_run(data, thinking, tmp_path / "cache")
    rows = agent_rows(run)
    assert len(rows) == 4 * 3
    assert trained(thinking, rows) == {
        f"<think>\nmuse{turn}\n</think>\n\nsay agent {number} {turn}<|im_end|>"
        for number in range(4)
        for turn in range(3)
    }
    report = run.report
    assert any("4 of 4 conversations give 12 rows" in note for note in report["notes"])
    assert report["agent"]["tokens"]["thoughts_left_out"] == 0


@pytest.mark.parametrize("packed", [None, 512])
def test_rows_of_one_conversation_never_straddle_the_holdout(
    data: dict[str, str], thinking: Any, tmp_path: Path, packed: int | None
) -> None:
    run = training_run(data, thinking, tmp_path / "cache", packed)
    prepared = run.prepared
    assert prepared.holdout is not None
    assert prepared.general is not None
    held = [thinking.decode(row["input_ids"]) for row in prepared.holdout]
    kept = [thinking.decode(row["input_ids"]) for row in prepared.general]
    assert len(held) == 3
    assert len(kept) == 2 * (12 - 3)
    for text in held:
        asked = text.split("\n")[1].removesuffix("<|im_end|>")
        assert not any(asked in other for other in kept)
    every = [thinking.decode(row["input_ids"]) for row in run.train_dataset]
    assert not any(text in packed_row for text in held for packed_row in every)


def test_conversations_without_a_record_never_straddle_the_holdout(
    data: dict[str, str], thinking: Any
) -> None:
    from dataset_builders.mixing.planning import Plan
    from dataset_builders.mixing.preparation import prepare
    from dataset_builders.sources.loading import load_source

    read = load_source(SourceSpec(data["general"], "messages")).conversations
    for conversation in read:
        object.__setattr__(conversation, "where", "")
    plan = Plan(eta=0.0)
    made = prepare(None, read, plan=plan, tokenizer=thinking, encoding=ENCODING)
    assert made.general is not None
    assert len(made.general) == 2 * (12 - 3)


def test_the_options_of_a_source_reach_its_rows_alone(
    data: dict[str, str], make_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    options = {"train_on": "last", "reasoning": "mask", "keep_last_turns": 1}
    run = training_run(data, tokenizer, tmp_path / "cache", **options)
    rows = agent_rows(run)
    assert trained(tokenizer, rows) == {f"say agent {n} 2<|im_end|>" for n in range(4)}
    text = tokenizer.decode(rows[0]["input_ids"])
    assert "ask agent 0 0\n\n[NOTICE] 2 messages are omitted." in text
    assert "say agent 0 1" in text
    assert "say agent 0 0" not in text
    tokens = run.report["agent"]["tokens"]
    assert (tokens["reasoning_masked"], tokens["history_cut"], tokens["by_turn"]) == (4, 4, 4)
    (source,) = run.report["agent"]["sources"]
    assert source["changed"] == {"train_on": 8}
    general = run.prepared.general
    assert len(general or ()) == 12 - 3
    assert all("<think>" in text for text in trained(tokenizer, general))


def test_labels_of_chosen_turns_are_those_of_the_unswitched_row(
    data: dict[str, str], make_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer()
    whole = agent_rows(training_run(data, tokenizer, tmp_path / "cache"))
    for options in ({"train_on": "last"}, {"reasoning": "mask"}):
        rows = agent_rows(training_run(data, tokenizer, tmp_path / "cache", **options))
        for row, other in zip(rows, whole, strict=True):
            assert row["input_ids"] == other["input_ids"]
            pairs = list(zip(row["labels"], other["labels"], strict=True))
            assert all(label in (-100, same) for label, same in pairs)
            assert 0 < sum(a >= 0 for a, _ in pairs) < sum(b >= 0 for _, b in pairs)


def test_the_cache_key_covers_the_options(
    data: dict[str, str], make_tokenizer: Any, thinking: Any, tmp_path: Path
) -> None:
    def key(tokenizer: Any, **options: Any) -> str:
        agent = [resolve_source(SourceSpec(data["agent"], **options))]
        return cache_key(agent, [], tokenizer, ENCODING)

    plain = make_tokenizer()
    (tmp_path / "mine.py").write_text("def pick(conversation):\n    return [1]\n", "utf-8")
    mine = f"{tmp_path}/mine.py:pick"
    keys = [
        key(plain),
        key(plain, train_on="last"),
        key(plain, train_on=mine),
        key(plain, reasoning="mask"),
        key(plain, rows="per_turn"),
        key(plain, keep_last_turns=2),
        key(thinking),
    ]
    assert len(set(keys)) == len(keys)
    assert key(plain, rows="auto", train_on="all") == keys[0]
    (tmp_path / "mine.py").write_text("def pick(conversation):\n    return [3]\n", "utf-8")
    assert key(plain, train_on=mine) not in keys


def test_build_and_inspect_take_the_same_options(
    data: dict[str, str], tiny_model_dir: Path, tmp_path: Path, run: Run
) -> None:
    from datasets import Dataset

    options = ("--train-on", "last", "--reasoning", "mask", "--keep-last-turns", 1)
    code, out, err = run(
        *("build", "--agent", data["agent"], "--eta", 1, "--num-examples", 4),
        *("--tokenizer", tiny_model_dir, "--out", tmp_path / "mix", "--json", *options),
    )
    assert code == 0, err
    assert json.loads(out)["agent"]["tokens"]["history_cut"] == 4
    rows = Dataset.load_from_disk(tmp_path / "mix")
    code, out, _ = run("inspect", data["agent"], "--tokenizer", tiny_model_dir, "--json", *options)
    facts = json.loads(out)
    assert facts["input_ids"] in list(rows["input_ids"])
    assert facts["labels"] in list(rows["labels"])
    every = ("--rows", "per_turn", "--json")
    out = run("inspect", data["agent"], "--tokenizer", tiny_model_dir, *every)[1]
    assert [len(row["trained_spans"]) for row in json.loads(out)["rows"]] == [1, 1, 1]


def test_senseless_settings_are_one_line(
    data: dict[str, str], tmp_path: Path, tiny_model_dir: Path, run: Run
) -> None:
    base = ("build", "--agent", data["agent"], "--eta", 1, "--num-examples", 4)
    base = (*base, "--out", tmp_path / "mix")
    code, _, err = run(*base, "--reasoning", "mask")
    assert (code, err.count("\n")) == (1, 1)
    assert "reasoning: mask: found without a tokenizer" in err
    extra = ("--tokenizer", tiny_model_dir, "--rows", "conversation", "--keep-last-turns", 2)
    code, _, err = run(*base, *extra)
    assert (code, err.count("\n")) == (1, 1)
    assert "rows: conversation" in err
    assert not (tmp_path / "mix").exists()


def test_check_counts_as_a_run_does(data: dict[str, str], thinking: Any) -> None:
    config = AgentTuningConfig(agent=data["agent"], general=data["general"], holdout=3)
    agent, general = Side("agent"), Side("general")
    assert not [each for each in check_data(config, agent, general) if each.level == "error"]
    found = [finding.detail for finding in check_sample(agent, thinking, ENCODING)]
    assert any("4 conversations as 12 rows by turn (an example is a row)" in line for line in found)
    spec = {"path": data["agent"], "train_on": "nobody:here"}
    config = AgentTuningConfig(agent=spec, general=data["general"], holdout=3)
    sides = Side("agent"), Side("general")
    errors = [f.detail for f in check_data(config, *sides) if f.level == "error"]
    assert any("nobody cannot be imported" in line for line in errors)


def test_build_mix_takes_the_options(data: dict[str, str], make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    spec = SourceSpec(data["agent"], rows="per_turn")
    rows = build_mix(spec, None, eta=1, num_examples=12, tokenizer=tokenizer)
    assert len(trained(tokenizer, rows)) == 12
    with pytest.raises(ConfigError, match="agent: rows: per_turn: found without a tokenizer"):
        build_mix(spec, None, eta=1, num_examples=12)
    (message_row, *_) = build_mix(
        SourceSpec(data["agent"], train_on="last", reasoning="drop"), None, eta=1, num_examples=4
    )
    assert [m["train"] for m in message_row["messages"]] == [False] * 5 + [True]
    assert not any(m.get("reasoning_content") for m in message_row["messages"])
