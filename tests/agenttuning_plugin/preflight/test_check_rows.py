"""`agenttuning check` builds the rows of a run: of all data, or of a sample with stated sizes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin import AgentTuningConfig
from agenttuning_plugin.preflight import sample
from agenttuning_plugin.preflight.planned import PlannedRun, check_planned
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.sizes import Size, size_of
from agenttuning_plugin.training_data.run import TrainingRun
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.inputs import resolve_source

Check = Callable[..., tuple[TrainingRun | None, Report]]


def rows(number: int, kind: str, words: int = 3) -> list[dict[str, Any]]:
    """Conversations of a side; the agent's answers are `words` long."""
    answer = "Thought: look.\nAction: " + "go " * words if kind == "agent" else "It is."
    return [
        {
            "messages": [
                {"role": "user", "content": f"{kind} {i}"},
                {"role": "assistant", "content": answer},
            ]
        }
        for i in range(number)
    ]


def lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), "utf-8")
    return str(path)


@pytest.fixture
def run_check(tmp_path: Path, make_tokenizer: Callable[..., Any]) -> Check:
    """Checks a run of 10 steps of 8 rows of 128 tokens."""

    def run(config: AgentTuningConfig, full: bool = False, **keys: Any) -> Any:
        settings = RunSettings(
            Encoding(max_length=128, holdout=config.holdout, agent_holdout=config.agent_holdout),
            Batch(micro=2, accumulation=4),
            keys.pop("steps", 10),
            seed=42,
            cache=tmp_path / "cache",
            **keys,
        )
        report = Report("recipe.yaml", full)
        return check_planned(PlannedRun(config, make_tokenizer(), settings), report), report

    return run


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of 8 conversations, of every source above 100 bytes."""
    monkeypatch.setattr(sample, "SAMPLE", 8)
    monkeypatch.setattr(sample, "WHOLE_BYTES", 100)


def ids(run: TrainingRun | None) -> list[list[int]]:
    assert run is not None
    return [[int(token) for token in row["input_ids"]] for row in run.train_dataset]


def config_of(folder: Path, agent: int = 40, general: int = 90, **keys: Any) -> AgentTuningConfig:
    return AgentTuningConfig(
        agent=lines(folder / "agent.jsonl", rows(agent, "agent")),
        general=lines(folder / "general.jsonl", rows(general, "general")),
        **{"eta": 0.25, "holdout": 4, **keys},
    )


def details(report: Report, what: str) -> list[str]:
    return [finding.detail for finding in report.findings if finding.what == what]


@pytest.mark.parametrize("packed", [None, 128])
def test_small_sources_give_the_figures_of_the_run(
    packed: int | None, run_check: Check, tmp_path: Path
) -> None:
    config = config_of(tmp_path)
    run, report = run_check(config, packed_length=packed)
    whole, full = run_check(config, full=True, packed_length=packed)
    assert run is not None
    assert whole is not None
    assert run.manifest.sha256 == whole.manifest.sha256
    assert ids(run) == ids(whole)
    assert report.facts == full.facts
    assert report.facts["sampled"] is False
    assert not report.of("warning")
    assert report.facts["loss"]["agent_share"] == run.loss["agent_share"]  # type: ignore[index]
    agent = report.facts["sources"][0]
    assert agent["passes"] == pytest.approx(agent["drawn"] / 40, abs=0.01)
    assert details(report, "agent passes")[0].endswith("agent.jsonl (40 records)")


def test_only_a_full_check_fills_the_cache_of_the_run(run_check: Check, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run_check(config)
    assert not (tmp_path / "cache").exists()
    run_check(config, full=True)
    (entry,) = [each for each in (tmp_path / "cache/agenttuning").iterdir() if each.is_dir()]
    run_check(config, full=True)
    assert [each for each in entry.parent.iterdir() if each.is_dir()] == [entry]


@pytest.mark.usefixtures("small_samples")
def test_passes_of_a_sample_are_those_of_all_data(run_check: Check, tmp_path: Path) -> None:
    config = config_of(tmp_path, eta=0.25)
    _, report = run_check(config)
    _, full = run_check(config, full=True)
    assert report.facts["sampled"] is True
    assert [each["rows"] for each in report.facts["sources"]] == [8, 4]  # 4 are held out
    assert [each["records"] for each in report.facts["sources"]] == [40, 90]
    for part, whole in zip(report.facts["sources"], full.facts["sources"], strict=True):
        assert part["passes"] == pytest.approx(whole["passes"], rel=0.06)
    assert "(40 records, estimated)" in details(report, "agent passes")[0]
    assert "(sample)" in details(report, "eta")[0]


@pytest.mark.usefixtures("small_samples")
def test_sampled_sources_keep_the_proportions_of_their_sizes(
    run_check: Check, tmp_path: Path
) -> None:
    agent = [
        lines(tmp_path / "short.jsonl", rows(120, "agent", 2)),
        lines(tmp_path / "long.jsonl", rows(40, "agent", 9)),
    ]
    config = config_of(tmp_path).model_copy(
        update={"agent": AgentTuningConfig(agent=agent, general=agent[0], holdout=0).agent}
    )
    _, report = run_check(config, steps=40)
    _, full = run_check(config, full=True, steps=40)
    part, whole = report.facts["mix"]["agent_share"], full.facts["mix"]["agent_share"]
    assert part["tokens"] == pytest.approx(whole["tokens"], rel=0.02)
    drawn = [each["drawn"] for each in report.facts["sources"]]
    assert drawn[0] == pytest.approx(3 * drawn[1], rel=0.1)


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize(("holdout", "ok"), [(2, True), (3, False)])
def test_agent_data_held_out_is_counted_by_task_beyond_the_sample(
    holdout: int, ok: bool, run_check: Check, tmp_path: Path
) -> None:
    tasks = ["os"] * 7 + ["db"] + ["os"] * 30 + ["db"] * 2
    agent = [{**row, "task": task} for row, task in zip(rows(40, "agent"), tasks, strict=True)]
    config = config_of(tmp_path, agent_holdout=holdout)
    lines(tmp_path / "agent.jsonl", agent)
    run, report = run_check(config)
    assert report.ok is ok
    if ok:
        assert run is not None
        assert run.report["agent_holdout"] == {"rows": 4}
    else:
        (line,) = details(report, "agent holdout")
        assert line.endswith("the agent sources hold 3 of db")


@pytest.mark.usefixtures("small_samples")
def test_a_length_in_passes_gives_the_steps_of_all_data(run_check: Check, tmp_path: Path) -> None:
    config = config_of(tmp_path, general_passes=3, holdout=0)
    run, _ = run_check(config, steps=None)
    whole, _ = run_check(config, full=True, steps=None)
    assert run is not None
    assert whole is not None
    assert run.steps == whole.steps


def test_many_passes_over_agent_data_are_a_warning_with_a_remedy(
    run_check: Check, tmp_path: Path
) -> None:
    _, report = run_check(config_of(tmp_path, agent=2, eta=0.5), steps=40)
    (warning,) = report.of("warning")
    assert warning.what == "agent passes"
    assert warning.detail.startswith("80.0 over ")
    assert "above 60 (paper: 25 to 50): more trajectories" in warning.detail
    _, report = run_check(config_of(tmp_path, agent=2, eta=0.5), steps=25)
    assert not report.of("warning")


def test_what_happens_to_long_conversations_is_counted(run_check: Check, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lines(tmp_path / "agent.jsonl", [*rows(20, "agent"), *rows(1, "agent", 400)])
    _, report = run_check(config)
    (line,) = details(report, "too long")
    assert line == (
        "conversations above 128 tokens: agent 1 (shorten, 1 dropped); general 0 (split)"
    )


def test_records_are_counted_or_estimated(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = rows(700, "general")
    plain = lines(tmp_path / "a.jsonl", records)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(Path(plain).read_text("utf-8"))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "c.parquet")
    (tmp_path / "d.json").write_text(json.dumps(records), "utf-8")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        size = size_of(resolve_source(str(tmp_path / name)))
        assert size == Size(700, True, (tmp_path / name).stat().st_size)
    estimated = size_of(resolve_source(str(tmp_path / "d.json")))
    assert estimated.records == pytest.approx(700, rel=0.02)
    assert not estimated.exact


def test_data_in_the_hubs_cache_are_read_without_the_network(
    run_check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as hub

    config = config_of(tmp_path)
    commit = "0" * 40
    folder = tmp_path / "hub/datasets--someone--agents"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    lines(snapshot / "data.jsonl", rows(40, "agent"))
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub_config = AgentTuningConfig(
        agent="someone/agents", general=config.general, eta=0.25, holdout=4
    )
    run, report = run_check(hub_config)
    assert ids(run) == ids(run_check(config)[0])
    assert details(report, "agent source")[0].startswith("someone/agents, messages, 1 file(s)")
    absent = AgentTuningConfig(agent="someone/else", general=config.general, holdout=4)
    run, report = run_check(absent)
    assert run is None
    assert details(report, "agent source") == [
        "someone/else, fetched from the hub when training starts; not read here"
    ]
    assert details(report, "general rows")
