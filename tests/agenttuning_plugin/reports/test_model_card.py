"""The model card is built from a run's files, also where some are missing or damaged."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

hub = pytest.importorskip("huggingface_hub", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin.reports.model_card import model_card, write_run_card  # noqa: E402
from agenttuning_plugin.reports.model_record import write_model_record  # noqa: E402

SAVED = Path(__file__).parents[2] / "assets/saved"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of an older version, with evaluations at its start and end."""
    folder = tmp_path / "tuned"
    shutil.copytree(SAVED / "run-packed", folder)
    rows = [
        {
            "step": step,
            "evaluator": "database",
            "suite": "held-in",
            "primary": "success",
            "about": {"prompt": "own:1"},
            "metrics": {
                "success": {"value": value, "stderr": 0.1, "low": 0.1, "high": 0.9, "n": 4}
            },
            "records": [
                {"item": str(number), "scores": {"success": float(number < 4 * value)}}
                for number in range(4)
            ],
        }
        for step, value in ((0, 0.25), (6, 0.75))
    ]
    rows.append({"step": 6, "evaluator": "os", "metrics": {}, "records": [], "error": "no bwrap"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "evaluations.jsonl").write_text(text, "utf-8")
    return folder


def test_data_shares_scores_and_commands_are_on_the_card(run: Path) -> None:
    base = {"name": "org/base", "revision": None}
    recipe = {"trainer": "axolotl", "path": "my.yaml", "text": "a: 1 # ```\n", "section": {}}
    quantization = {"load_in_4bit": True}
    write_model_record(run, {"base": base, "quantization": quantization, "recipe": recipe})
    card = hub.ModelCard(model_card(run, "tuned"))
    assert card.data.base_model == "org/base"
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("success", 0.75)
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    report = json.loads((run / "agenttuning_report.json").read_text("utf-8"))
    for part in (
        "| agent | agent.jsonl | 7 | 7 |",
        f"| wanted (eta), in examples | {manifest['wanted']['eta']} |",
        f"| realised, in trained tokens | {report['mix']['share_of_trained_tokens']:.4f} |",
        "| database | success | 0.250 [0.100, 0.900] | 0.750 [0.100, 0.900] (step 6) | 4 | +0.500",
        "- not measured: os: no bwrap",
        "| base model org/base | not stated |",
        "quantised to 4 bits",
        "axolotl train my.yaml",
        "````yaml\na: 1 # ```\n````",
        f"transformers {manifest['versions']['transformers']}",
    ):
        assert part in card.text, card.text


def test_licences_are_those_of_the_cards_beside_the_data(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "README.md").write_text("---\nlicense: [mit, cc-by-4.0]\n---\n# Data\n", "utf-8")
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    manifest["where"]["agent"] = [str(data)]
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    text = model_card(run, "tuned")
    assert f"| agent data {data} | mit, cc-by-4.0 |" in text
    assert "| general data general.jsonl | not stated |" in text


def test_a_damaged_file_does_not_end_a_finished_run(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "evaluations.jsonl").write_text('{"step": 1}\n', "utf-8")
    with caplog.at_level(logging.WARNING):
        write_run_card(run)
    assert "no model card" in caplog.text
    assert not (run / "README.md").exists()
    for file in run.iterdir():
        file.unlink()
    write_run_card(run)
    text = (run / "README.md").read_text("utf-8")
    assert "the folder has no `manifest.json`" in text
    assert "Not measured during training." in text
