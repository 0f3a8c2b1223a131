"""The cache: never stale, never half, made once however many processes ask."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin.config.recipe import AgentTuningSection
from agenttuning_plugin.training_data.cache import cache_key, load_or_make
from agenttuning_plugin.training_data.run import TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import ConfigError, DataError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.planning import Plan
from dataset_builders.mixing.preparation import EncodedSources, Encoding, prepare
from dataset_builders.sources.inputs import resolve_source

BUDGET: dict[str, Any] = {"steps": 10, "batch": 4}
ENCODING = Encoding(max_length=256, holdout=3)


def write(path: Path, texts: list[str]) -> Path:
    lines = [
        json.dumps(
            {
                "id": str(number),
                "messages": [
                    {"role": "user", "content": "say it"},
                    {"role": "assistant", "content": text},
                ],
            }
        )
        for number, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture
def section(tmp_path: Path) -> AgentTuningSection:
    agent = write(tmp_path / "agent.jsonl", [f"agent {i}" for i in range(7)])
    general = write(tmp_path / "general.jsonl", [f"chat {i} " * (1 + i % 9) for i in range(40)])
    return AgentTuningSection.model_validate({"agent": str(agent), "general": str(general)})


def mix(
    section: AgentTuningSection, tokenizer: Any, budget: dict[str, Any], cache: Path
) -> TrainingRun:
    """The run of a section: `budget` has `steps`, `batch` and `packed_length`."""
    length = budget.get("packed_length")
    batch, steps = Batch(budget["batch"]), budget["steps"]
    return TrainingRun(section, tokenizer, RunSettings(ENCODING, batch, steps, 1, cache, length))


def key_of(section: AgentTuningSection, tokenizer: Any, encoding: Encoding = ENCODING) -> str:
    agent = [resolve_source(source) for source in section.agent]
    general = [resolve_source(source) for source in section.general]
    return cache_key(agent, general, tokenizer, encoding)


def test_an_edited_file_is_never_served_stale(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    before = mix(section, small_tokenizer, BUDGET, cache).prepared
    path = Path(section.agent[0].path)
    stamp = path.stat()
    # Same length and same time stamp: only the content tells.
    path.write_text(path.read_text("utf-8").replace("agent 3", "AGENT 3"), "utf-8")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = mix(section, small_tokenizer, BUDGET, cache).prepared
    assert before.agent is not None
    assert after.agent is not None
    assert before.agent[3]["input_ids"] != after.agent[3]["input_ids"]
    assert before.agent[4]["input_ids"] == after.agent[4]["input_ids"]


def test_the_key_covers_what_the_rows_depend_on(
    section: AgentTuningSection, small_tokenizer: Any
) -> None:
    import copy

    other_template = copy.deepcopy(small_tokenizer)
    other_template.chat_template = small_tokenizer.chat_template.replace("\\n", "\\n\\n")
    other_tokens = copy.deepcopy(small_tokenizer)
    other_tokens.add_tokens(["chat"])
    fewer = section.model_copy(deep=True)
    fewer.general[0] = replace(fewer.general[0], limit=30)
    keys = [
        key_of(section, small_tokenizer),
        key_of(section, other_template),
        key_of(section, other_tokens),
        key_of(fewer, small_tokenizer),
        key_of(section, small_tokenizer, Encoding(max_length=255, holdout=3)),
        key_of(section, small_tokenizer, Encoding(max_length=256, holdout=4)),
        key_of(section, small_tokenizer, Encoding(max_length=256, holdout=3, policy="truncate")),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(section, small_tokenizer) == keys[0]


def test_a_sweep_over_eta_shares_the_cache(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    budget = {"steps": 10, "batch": 4}
    for eta, agent_examples in ((1.0, 40), (0.5, 20), (0.0, 0), (0.2, 8)):
        section.eta = eta
        made = mix(section, small_tokenizer, budget, tmp_path)
        assert made.report["mix"]["agent_examples"] == agent_examples
        assert len(made.eval_dataset or ()) == 3


def test_a_tokenizer_without_offsets_is_told_in_a_line(
    section: AgentTuningSection, tmp_path: Path
) -> None:
    class Slow:
        chat_template, is_fast, eos_token, name_or_path = "{{ 1 }}", False, "</s>", "slow"

    with pytest.raises(ConfigError, match="slow: found a slow tokenizer"):
        mix(section, Slow(), BUDGET, tmp_path)


def test_an_entry_can_be_read_by_others(tmp_path: Path) -> None:
    load_or_make(tmp_path, "k", _small)
    assert (tmp_path / "k").stat().st_mode & 0o055 == 0o055


def test_a_second_run_takes_what_the_first_made(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    def make(folder: Path) -> EncodedSources:
        return prepare(
            section.agent[0].path,
            section.general[0].path,
            plan=Plan(0.2),
            tokenizer=small_tokenizer,
            encoding=ENCODING,
        )

    def never(_: Path) -> EncodedSources:
        raise AssertionError("made again")

    first, found_first = load_or_make(tmp_path / "cache", "k", make)
    second, found_second = load_or_make(tmp_path / "cache", "k", never)
    assert (found_first, found_second) == (False, True)
    for name in ("agent", "general", "holdout"):
        assert getattr(first, name)[:] == getattr(second, name)[:]
    assert first.report == second.report


def _ask(folder: Path, log: Path, start: float) -> None:
    def make(folder: Path) -> EncodedSources:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        return _small()

    time.sleep(max(0.0, start - time.time()))
    prepared, _ = load_or_make(folder, "k", make)
    assert prepared.agent is not None
    assert prepared.agent[0]["input_ids"] == [1, 2]


def _small(_: Path | None = None) -> EncodedSources:
    from datasets import Dataset

    return EncodedSources(
        Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]}), None, None
    )


def _run(target: Callable[..., None], *args: Any) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def test_ranks_do_not_race(tmp_path: Path) -> None:
    log = tmp_path / "makers"
    start = time.time() + 8
    ranks = [_run(_ask, tmp_path / "cache", log, start) for _ in range(3)]
    for rank in ranks:
        rank.join(300)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert len(log.read_text().split()) == 1


def _die_while_writing(folder: Path) -> None:
    def dying(path: Path, *_: Any, **__: Any) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    # The report is written last, when the rows are on disk already.
    Path.write_text = dying  # type: ignore[assignment]
    load_or_make(folder, "k", _small)


def test_what_a_killed_process_leaves_is_not_taken_for_whole(tmp_path: Path) -> None:
    process = _run(_die_while_writing, tmp_path / "cache")
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    leftovers = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert leftovers, "the process died before it had written anything"
    prepared, found = load_or_make(tmp_path / "cache", "k", _small)
    assert not found
    assert prepared.agent is not None


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(_: Path) -> EncodedSources:
        raise DataError("no")

    with pytest.raises(DataError):
        load_or_make(tmp_path, "k", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_steps_decide_the_length(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    made = mix(section, small_tokenizer, {"steps": 20, "batch": 5}, tmp_path)
    assert (len(made.train_dataset), made.steps) == (100, 20)
    assert made.report["mix"]["agent_examples"] == 20
    assert made.report["mix"]["share_of_examples"] == 0.2
    assert len(made.eval_dataset or ()) == 3


def test_packed_rows_are_filled(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    budget = {"steps": 20, "batch": 2, "packed_length": 256}
    made = mix(section, small_tokenizer, budget, tmp_path)
    assert (len(made.train_dataset), made.steps) == (40, 20)
    rows = [made.train_dataset[number] for number in range(40)]
    assert [len(row["input_ids"]) for row in rows] == [sum(row["seq_lengths"]) for row in rows]
    assert max(len(row["input_ids"]) for row in rows) <= 256
    packing, facts = made.report["packing"], made.report["mix"]
    assert packing["tokens"] == sum(len(row["input_ids"]) for row in rows)
    assert packing["fill"] == round(packing["tokens"] / 40 / 256, 6)
    assert packing["fill"] > 0.95
    assert facts["examples"] == sum(len(row["seq_lengths"]) for row in rows)
    assert abs(facts["share_of_examples"] - 0.2) < 0.05
    again = mix(section, small_tokenizer, budget, tmp_path)
    assert all(
        row["input_ids"].tolist() == other["input_ids"].tolist()
        for row, other in zip(rows, again.train_dataset, strict=True)
    )


def test_too_few_examples_for_the_packed_rows_are_refused(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    section.num_examples = 10
    with pytest.raises(ConfigError, match="num_examples: found 10, expected at least"):
        mix(section, small_tokenizer, {"steps": 5, "batch": 4, "packed_length": 256}, tmp_path)


def test_shares_in_the_report_are_counted_ones(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    made = mix(section, small_tokenizer, {"steps": 10, "batch": 8}, tmp_path)
    agent = [
        bool("agent" in small_tokenizer.decode(row["input_ids"])) for row in made.train_dataset
    ]
    tokens = [len(row["input_ids"]) for row in made.train_dataset]
    trained = [sum(label != -100 for label in row["labels"]) for row in made.train_dataset]
    facts = made.report["mix"]
    assert facts["share_of_examples"] == sum(agent) / len(agent)
    for name, counts in (("tokens", tokens), ("trained_tokens", trained)):
        share = sum(n for n, is_agent in zip(counts, agent, strict=True) if is_agent) / sum(counts)
        assert facts[f"share_of_{name}"] == pytest.approx(share, abs=1e-6)


def test_a_seed_of_the_section_wins(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    budget = {"steps": 10, "batch": 4}
    plain = mix(section, small_tokenizer, budget, tmp_path).train_dataset["input_ids"][:]
    again = mix(section, small_tokenizer, budget, tmp_path).train_dataset["input_ids"][:]
    section.mix_seed = 2
    other = mix(section, small_tokenizer, budget, tmp_path).train_dataset["input_ids"][:]
    assert plain == again
    assert plain != other


def test_too_few_examples_for_the_steps_are_refused(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    section.num_examples = 10
    with pytest.raises(ConfigError, match="num_examples: found 10, expected at least 20"):
        mix(section, small_tokenizer, {"steps": 5, "batch": 4}, tmp_path)


def test_examples_alone_decide_the_steps(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    section.num_examples = 10
    made = mix(section, small_tokenizer, {"steps": None, "batch": 4}, tmp_path)
    assert (len(made.train_dataset), made.steps) == (10, 3)


def test_neither_is_refused(
    section: AgentTuningSection, small_tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="max_steps: missing"):
        mix(section, small_tokenizer, {"steps": None, "batch": 4}, tmp_path)
    section.num_examples = 10
    with pytest.raises(ConfigError, match="max_steps: missing"):
        mix(section, small_tokenizer, {"steps": None, "batch": 4, "packed_length": 256}, tmp_path)
