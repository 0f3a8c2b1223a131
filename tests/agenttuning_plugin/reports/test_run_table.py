"""`agenttuning table` and `compare` of many runs, on folders as runs and sweeps leave them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agenttuning_plugin.cli.main import app
from agenttuning_plugin.reports.runs.figures import Figure
from dataset_builders.errors import AgentTuningError, ConfigError, SourceNotFoundError
from evaluators.evaluator import EvalResult
from evaluators.stats.paired import paired_change
from evaluators.stats.replicated import replicated_change
from tests.support.run_folders import evaluation, write_run, write_sweep

ETA = "agenttuning.eta"


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, AgentTuningError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def table(*arguments: object) -> Any:
    return json.loads(run("table", *arguments, "--json").stdout)


def scores(eta: float, seed: int) -> list[float]:
    """Of 12 items the first ones succeed, more with a higher eta, another one with each seed."""
    return [float(n < 3 + 8 * eta or n == 12 - seed) for n in range(12)]


def losses(eta: float, seed: int) -> list[float]:
    return [1.0 + 0.05 * n + 0.2 * eta + 0.01 * seed for n in range(6)]


def results(eta: float, seed: int) -> list[EvalResult]:
    return [
        evaluation("database", scores(eta, seed), suite="held-in"),
        evaluation("general", losses(eta, seed), "loss", suite="general"),
    ]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three values of eta with two seeds; the last arm was not started."""
    out = tmp_path / "sweep"
    base = [evaluation("database", [0.0] * 12), evaluation("general", [2.0] * 6, "loss")]
    arms = []
    for seed in (1, 2):
        for eta in (0.1, 0.5, 1.0):
            group = f"eta-{eta}"
            arms.append((group, seed, {ETA: str(eta)}))
            if (eta, seed) != (1.0, 2):
                folder = out / f"{group}_seed-{seed}"
                write_run(folder, base, results(eta, seed), seed=seed, section={"eta": eta})
    write_sweep(out, {ETA: ["0.1", "0.5", "1.0"]}, arms)
    return out


def test_arms_of_a_sweep_have_means_differences_and_cost(sweep: Path) -> None:
    found = table(sweep)
    assert (found["keys"], found["against"]) == ([ETA], "base")
    assert [arm["seeds"] for arm in found["arms"]] == [[1, 2], [1, 2], [1]]
    first = found["arms"][0]
    assert (first["eta_examples"], first["eta_tokens"], first["eta_trained_tokens"]) == (
        pytest.approx(0.1),
        pytest.approx(0.05),
        pytest.approx(0.025),
    )
    # 100 seconds after the start, of which two evaluations took 20; two more before it.
    assert (first["steps"], first["seconds"], first["evaluation_seconds"]) == (20, 80, 40)
    assert found["without_results"] == {"eta-1.0_seed-2": "not started"}
    database, general = found["figures"]
    assert [cell["arm"] for cell in database["arms"]] == ["base", "eta 0.1", "eta 0.5", "eta 1.0"]
    means = [cell["mean"]["value"] for cell in database["arms"]]
    expected = [sum(scores(eta, s)) / 12 for eta in (0.1, 0.5) for s in (1, 2)]
    assert means[1:3] == [
        pytest.approx(sum(expected[:2]) / 2),
        pytest.approx(sum(expected[2:]) / 2),
    ]
    assert database["arms"][0]["mean"]["runs"] == 1
    change = general["arms"][1]["change"]
    assert change["value"] == pytest.approx(
        change["before"] * -1 + general["arms"][1]["mean"]["value"]
    )


def test_differences_from_a_named_arm_are_paired_by_seed_and_item(sweep: Path) -> None:
    (general,) = table(sweep, "--against", "eta 0.1", "--figure", "general")["figures"]
    cells = {cell["arm"]: cell for cell in general["arms"]}
    before = [evaluation("general", losses(0.1, s), "loss").records for s in (1, 2)]
    after = [evaluation("general", losses(0.5, s), "loss").records for s in (1, 2)]
    expected = replicated_change(before, after, "loss")
    assert cells["eta 0.5"]["change"]["value"] == pytest.approx(expected.value)
    assert cells["eta 0.5"]["change"]["p_value"] == pytest.approx(expected.p_value)
    single = paired_change(before[0], evaluation("general", losses(1.0, 1), "loss").records, "loss")
    assert cells["eta 1.0"]["change"]["value"] == pytest.approx(single.value)
    assert cells["eta 1.0"]["change"]["method"] == "items"
    assert cells["eta 0.1"]["change"] is None
    # Two arms are compared: Holm doubles the smaller p value.
    smaller = min(
        (cells[name] for name in ("eta 0.5", "eta 1.0")), key=lambda c: c["change"]["p_value"]
    )
    assert smaller["p_holm"] == pytest.approx(2 * smaller["change"]["p_value"])


def test_formats_list_what_is_missing(sweep: Path) -> None:
    done = run("table", sweep)
    assert "eta-1.0_seed-2: not started" in done.stderr
    assert "against" in done.stdout
    markdown = run("table", sweep, "--format", "md").stdout
    assert "| eta 0.5 | 2x12 |" in markdown
    assert "- eta-1.0_seed-2: not started" in markdown
    rows = list(csv.DictReader(io.StringIO(run("table", sweep, "--format", "csv").stdout)))
    assert [row["arm"] for row in rows[:4]] == ["base", "eta 0.1", "eta 0.5", "eta 1.0"]
    assert rows[1][ETA] == "0.1"
    assert float(rows[1]["eta_tokens"]) == pytest.approx(0.05)
    assert rows[-1]["remark"] == "no results: not started"


def test_the_page_and_the_plot_show_every_arm(sweep: Path, tmp_path: Path) -> None:
    page, plot = tmp_path / "pages/page.html", tmp_path / "plot.svg"
    run("table", sweep, "--html", page, "--plot", plot, "--figure", "database")
    text = page.read_text("utf-8")
    assert "eta-1.0_seed-2: not started" in text
    assert 'href="../sweep/eta-0.1_seed-1/evaluations.jsonl"' in text
    assert "<script" not in text
    drawing = ET.fromstring(plot.read_text("utf-8"))
    circles = [e for e in drawing.iter() if e.tag.endswith("circle")]
    places = [float(circle.attrib["cx"]) for circle in circles]
    # A numeric axis: 0.1 to 0.5 is four fifths of 0.5 to 1.
    assert (places[1] - places[0]) / (places[2] - places[1]) == pytest.approx(0.8, abs=0.01)
    assert any(e.attrib.get("class") == "base" for e in drawing.iter())


def test_a_heading_does_not_repeat_the_evaluators_last_word() -> None:
    assert Figure("general_kl", "kl", "general", percent=False).title == "general_kl"
    assert Figure("database", "success", "held-in", percent=True).title == "database success"


def test_a_named_arm_stays_off_the_axis_and_shows_the_names_of_values(
    sweep: Path, tmp_path: Path
) -> None:
    plan = json.loads((sweep / "sweep.json").read_text("utf-8"))
    plan["arms"].append({"name": "units_seed-1", "group": "units", "seed": 1, "values": {}})
    section = {"eta": 0.5, "eta_unit": "token"}
    write_run(sweep / "units_seed-1", [], results(0.5, 1), section=section)
    (sweep / "units_seed-1/finished.json").write_text("{}", "utf-8")
    (sweep / "sweep.json").write_text(json.dumps(plan), "utf-8")
    plot = tmp_path / "plot.svg"
    run("table", sweep, "--plot", plot, "--figure", "database")
    drawing = ET.fromstring(plot.read_text("utf-8"))
    places = [float(e.attrib["cx"]) for e in drawing.iter() if e.tag.endswith("circle")]
    assert len(places) == 3
    assert (places[1] - places[0]) / (places[2] - places[1]) == pytest.approx(0.8, abs=0.01)
    assert "eta (not plotted: 1 other arm)" in plot.read_text("utf-8")
    # By eta alone it is a run of eta 0.5, as those of the sweep.
    pooled = table(sweep, "--by", ETA)
    assert [arm["arm"] for arm in pooled["arms"]] == ["eta 0.1", "eta 0.5", "eta 1.0"]
    assert pooled["arms"][1]["seeds"] == [1, 1, 2]
    assert any("also differ in agenttuning.eta_unit" in each for each in pooled["remarks"])


def test_runs_without_a_sweep_are_grouped_by_the_keys_that_differ(tmp_path: Path) -> None:
    for rate in (1e-3, 1e-4):
        for name in ("chat", "replay"):
            for seed in (1, 2):
                write_run(
                    tmp_path / f"{name}-{rate}-{seed}", [], results(0.2, seed), seed=seed,
                    section={"general": [{"path": f"/data/{name}.jsonl"}]},
                    keys={"learning_rate": rate, "output_dir": f"{name}-{rate}-{seed}"},
                )  # fmt: skip
    found = table(tmp_path)
    assert set(found["keys"]) == {"learning_rate", "agenttuning.general"}
    assert len(found["arms"]) == 4
    assert found["against"] == found["arms"][0]["arm"]
    pooled = table(tmp_path, "--by", "general")
    assert [arm["arm"] for arm in pooled["arms"]] == ["general chat", "general replay"]
    assert pooled["arms"][0]["seeds"] == [1, 1, 2, 2]
    assert "general chat: pools runs that also differ in learning_rate" in pooled["remarks"]
    plot = tmp_path / "plot.svg"
    run("table", tmp_path, "--by", "general,learning_rate", "--plot", plot)
    assert "general replay"[8:] in plot.read_text("utf-8")
    with pytest.raises(ConfigError, match="--by: found 'rank', expected keys such as arm, learn"):
        run("table", tmp_path, "--by", "rank")


def test_evaluations_and_unfinished_runs(tmp_path: Path) -> None:
    from evaluators.results.evaluations import write_record

    for name, value in (("one", 0.0), ("two", 1.0)):
        write_record(tmp_path / name, 0, evaluation("os", [value] * 5))
    write_run(tmp_path / "three", [], results(0.2, 1), finished=False)
    write_run(tmp_path / "four", results(0.2, 1), [])
    found = table(tmp_path / "one", tmp_path / "two", tmp_path / "three", tmp_path / "four")
    assert [arm["arm"] for arm in found["arms"]] == ["one", "two"]
    assert found["without_results"] == {
        "three": "not finished: last evaluation at step 20",
        "four": "no evaluation after training",
    }
    (figure,) = found["figures"]
    assert figure["arms"][1]["change"]["value"] == 1.0


def test_other_items_are_not_compared(tmp_path: Path) -> None:
    for name in ("x", "y"):
        result = evaluation("general", [1.0, 2.0], "loss", about={"data": f"2 rows, {name}"})
        write_run(tmp_path / name, [], [result], section={"eta": 0.1 if name == "x" else 0.5})
    (figure,) = table(tmp_path)["figures"]
    assert figure["arms"][1]["change"] is None
    assert figure["remarks"] == [
        "eta 0.5: not compared, other items: data is 2 rows, x and 2 rows, y"
    ]


def test_an_evaluator_that_failed_is_named(sweep: Path) -> None:
    folder = sweep / "eta-0.5_seed-2"
    shutil.rmtree(folder)
    broken = EvalResult("database", {}, 0, 0.0, error="database: no server")
    write_run(folder, [], [broken, results(0.5, 2)[1]], seed=2, section={"eta": 0.5})
    (folder / "finished.json").write_text("{}", "utf-8")
    (figure,) = table(sweep, "--figure", "database.success")["figures"]
    assert "eta-0.5_seed-2: not measured: no server" in figure["remarks"]
    assert figure["arms"][2]["mean"]["runs"] == 1


def test_wrong_input_is_one_clear_error(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        run("table", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="found no run"):
        run("table", tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"--against: found 'x', expected one of base, eta 0.1"):
        run("table", sweep, "--against", "x")
    with pytest.raises(ConfigError, match=r"--figure: found 'os', expected one of database"):
        run("table", sweep, "--figure", "os")
    (sweep / "sweep.json").write_text("[]", "utf-8")
    with pytest.raises(AgentTuningError, match=r"sweep.json: found list, expected an object"):
        run("table", sweep)


def test_compare_takes_more_than_two_folders(sweep: Path) -> None:
    folders = [sweep / f"eta-{eta}_seed-1" for eta in (0.1, 0.5, 1.0)]
    found = json.loads(run("compare", *folders, "--json").stdout)
    assert found["against"] == "eta-0.1_seed-1"
    general = found["figures"][1]["arms"]
    assert [cell["change"] is None for cell in general] == [True, True, False, False]
    assert general[3]["change"]["value"] == pytest.approx(0.18)
    with pytest.raises(ConfigError, match=r"--first-step.*expected two folders at most"):
        run("compare", *folders, "--first-step", 0)
