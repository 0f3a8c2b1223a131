"""Sources that are prepared before training: failed episodes added, turns chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin import AgentTuningConfig, TrainingRun
from agenttuning_plugin.preflight.made import check_made
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.training_data.made_sources import FOLDER, MakeContext, made_source
from agenttuning_plugin.training_data.settings import RunSettings
from dataset_builders.errors import AgentTuningError, ConfigError, DataError
from dataset_builders.manifest.records import Batch
from dataset_builders.mixing.preparation import Encoding
from dataset_builders.sources.inputs import resolve_source
from dataset_builders.sources.loading import SourceSpec, load_source
from dataset_builders.sources.made import prepared_notes
from dataset_builders.variation.settings import VarySettings
from tests.support.endpoint import Endpoint, Messages, serving
from tests.support.noisy_collection import collect_noisy
from tests.support.source_files import write_sides

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy") / "collected"
    collect_noisy(out)
    return out


@pytest.fixture
def context(tmp_path: Path) -> MakeContext:
    return MakeContext(tmp_path / "prepared" / FOLDER, "", None)


def second_turn(messages: Messages) -> str:
    """Judge that finds the last of two turns critical."""
    assert "[TURN 1]" in messages[1]["content"]
    assert "Choose the 1 most critical of the 2 turns" in messages[1]["content"]
    return "The answer decides: [2]"


@pytest.fixture
def judge() -> Iterator[Endpoint]:
    endpoint = Endpoint(second_turn)
    with serving(endpoint):
        yield endpoint


def judged(path: Path, endpoint: Endpoint, **options: Any) -> SourceSpec:
    settings: dict[str, Any] = {"judge_model": "m", "judge_base_url": endpoint.url, **options}
    return SourceSpec(path=str(path), train_on="judge", **settings)


def test_a_recipe_trains_on_failed_episodes_and_records_them(
    noisy: Path, tmp_path: Path, small_tokenizer: Any
) -> None:
    sides = write_sides(tmp_path, agent=4, general=12)
    agent = {"path": str(noisy), "failed": "marked", "failed_limit": 0.2, "splits": ["db"]}
    config = AgentTuningConfig(agent=agent, general=sides["general"], eta=0.5)
    settings = RunSettings(Encoding(max_length=1024), Batch(4), 6, 0, tmp_path / "prepared")
    run = TrainingRun(config, small_tokenizer, settings)
    (source,) = run.manifest.content["agent"]["sources"]
    counts = {"solved": 10, "failed": 2, "left_out": {"broken: cut_turns": 6, "over_limit": 4}}
    counts["left_out"]["repeated"] = 3  # type: ignore[index]
    assert source["made"]["marked"] == {"db": counts}
    note = "failed: marked: db: 10 solved, 2 failed; left out: broken: cut_turns 6, over_limit 4, "
    assert f"{note}repeated 3" in run.report["notes"]
    assert (source["records"], source["format"]) == (12, "messages")
    # Where it lies and how it was asked for are no part of what it is.
    assert not source.keys() & {"failed", "failed_limit", "path"}
    texts = [small_tokenizer.decode(row["input_ids"]) for row in run.train_dataset]
    assert any("\n\nThe result must be correct." in text for text in texts)
    assert any("\n\nThe result must be incorrect." in text for text in texts)

    again = TrainingRun(config, small_tokenizer, settings)
    assert again.manifest.sha256 == run.manifest.sha256
    # Other markers are another source.
    other = AgentTuningConfig(agent=agent | {"failed_marker": "No."}, general=sides["general"])
    other_run = TrainingRun(other, small_tokenizer, settings)
    assert other_run.manifest.content["agent"]["sha256"] != run.manifest.content["agent"]["sha256"]
    assert len(list((tmp_path / "prepared" / FOLDER).iterdir())) == 2


def test_the_commands_options(
    noisy: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sides = write_sides(tmp_path, agent=4, general=12)
    fixed = ("--general", sides["general"], "--num-examples", "24", "--eta", "0.5", "--json")
    options = ("--failed", "marked", "--failed-marker", "Wrong.", "--train-on", "state_changing")
    code, out, _ = run("build", "--agent", noisy, *options, *fixed, "--out", tmp_path / "mix")
    assert code == 0, out
    from datasets import load_from_disk

    rows = [row for row in load_from_disk(str(tmp_path / "mix")) if row["task"] == "db"]
    failed = [row for row in rows if "failed" in row["id"]]
    assert failed
    assert all(row["messages"][0]["content"].endswith("\n\nWrong.") for row in failed)
    for row in rows:
        trained = [n for n, message in enumerate(row["messages"]) if message["train"]]
        assert trained in ([5], [3, 5])  # The query, where it changes a table; the answer.
    code, _, err = run(
        *("build", "--agent", sides["agent"], "--train-on", "state_changing", *fixed),
        *("--out", tmp_path / "other"),
    )
    assert code == 1
    assert "expected a folder made by `agenttuning collect`" in " ".join(err.split())


def test_a_model_names_the_critical_turns(
    noisy: Path, context: MakeContext, judge: Endpoint
) -> None:
    spec = judged(noisy, judge)
    made = resolve_source(made_source(spec, context))
    conversations, report = load_source(made)
    assert [c.num_trained for c in conversations] == [1] * 10
    assert all(c.messages[5].trained for c in conversations)
    assert report.changed == {"train_on": 10}
    assert made.made is not None
    facts = {"conversations": {"judged": 10}, "turns": {"all": 20, "chosen": 10}}
    assert made.made["judge"] == facts
    assert prepared_notes(made.made) == [
        "train_on: judge: 10 of 20 turns chosen; conversations: judged 10"
    ]
    assert len(judge.requests) == 10
    assert all(request["temperature"] == 0.0 for request in judge.requests)
    # Once for all runs; another address of the same model makes no other source.
    made_source(judged(noisy, judge, judge_base_url="http://127.0.0.1:1/v1"), context)
    assert len(judge.requests) == 10


def test_replies_of_a_killed_run_are_used_again(noisy: Path, context: MakeContext) -> None:
    with serving(endpoint := Endpoint(second_turn)):
        made = made_source(judged(noisy, endpoint), context)
        (Path(made.path) / "made/provenance.json").unlink()  # As if killed before the end.
        (Path(made.path) / "made/turns.jsonl").unlink()
        again = made_source(judged(noisy, endpoint), context)
    assert again == made
    assert len(endpoint.requests) == 10


def test_a_judge_that_names_no_turns(noisy: Path, context: MakeContext) -> None:
    answers = iter(range(1000))

    def reply(messages: Messages) -> str:
        return "[9]" if next(answers) < 4 else "[1]"

    with serving(endpoint := Endpoint(reply)):
        made = resolve_source(made_source(judged(noisy, endpoint), context))
    assert made.made is not None
    # Numbers that are no turns are asked for once more, together with the rest of their group.
    assert made.made["judge"]["conversations"] == {"judged": 10}
    with (
        serving(endpoint := Endpoint(lambda messages: "All of them.")),
        pytest.raises(DataError, match=r"train_on: judge: .* no reply could be used"),
    ):
        made_source(judged(noisy, endpoint, judge_share=0.5), context)
    assert len(endpoint.requests) == 20


def test_check_makes_nothing_and_counts_the_requests(
    noisy: Path, tmp_path: Path, small_tokenizer: Any
) -> None:
    agent = [
        {"path": str(noisy), "train_on": "judge", "judge_model": "m"},
        {"path": str(noisy), "failed": "marked", "train_on": "state_changing"},
    ]
    config = AgentTuningConfig(
        agent=agent, general=write_sides(tmp_path, agent=4, general=12)["general"]
    )
    settings = RunSettings(Encoding(max_length=1024), Batch(4), 6, 0, tmp_path / "prepared")
    report = Report("recipe.yaml")
    read = check_made(config, small_tokenizer, settings, report)
    assert [each["requests"] for each in report.facts["made"]] == [10, 0]
    assert not (tmp_path / "prepared").exists()
    assert [(spec.path, spec.train_on, spec.failed) for spec in read.agent] == [
        (str(noisy), "all", "drop")
    ] * 2
    lines = " ".join(str(finding) for finding in report.findings)
    assert "10 requests to m" in lines
    assert "db: 10 solved, 6 failed" in lines


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train_on": "judge"}, "train_on: judge: judge_model: missing"),
        ({"failed": "marked", "min_reward": 0.5}, "min_reward: found with failed: marked"),
        (
            {"train_on": "state_changing", "vary": VarySettings()},
            "vary: found with train_on: state_changing",
        ),
        ({"failed": "marked", "splits": ("os",)}, "splits: found 'os', expected any of db"),
    ],
)
def test_wrong_settings(
    settings: dict[str, Any], expected: str, noisy: Path, context: MakeContext
) -> None:
    with pytest.raises(ConfigError, match=expected):
        made_source(SourceSpec(path=str(noisy), **settings), context)


def test_data_that_were_not_prepared_are_one_error(noisy: Path) -> None:
    for settings in ({"failed": "marked"}, {"train_on": "state_changing"}):
        spec = SourceSpec(path=str(noisy), **settings)
        with pytest.raises(AgentTuningError, match="the data are not prepared yet: a recipe"):
            load_source(resolve_source(spec))


def test_pairs_are_a_command(noisy: Path, tmp_path: Path, run: Run) -> None:
    code, out, _ = run("pairs", noisy, "--out", tmp_path / "pairs.jsonl", "--json")
    assert code == 0
    assert json.loads(out)["pairs"] == 3
    code, out, _ = run("pairs", noisy, "--out", tmp_path / "again.jsonl")
    assert "3 pairs" in out
    assert "left out: broken: cut_turns: 6" in out
    code, _, err = run("pairs", tmp_path, "--out", tmp_path / "none.jsonl")
    assert code == 1
    assert "found no collection/*.sqlite" in " ".join(err.split())
