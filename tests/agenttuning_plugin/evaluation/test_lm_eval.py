"""A task of lm_eval in a recipe and on the command line: a local one, by the real lm_eval."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Of its own dependencies, as they load.
    pytest.importorskip("lm_eval", reason="pip install 'agenttuning-plugin[general]'")

from agenttuning_plugin.cli import main as cli
from agenttuning_plugin.config.evaluation import BenchmarkConfig
from agenttuning_plugin.evaluation.from_config import make_evaluator
from dataset_builders.errors import ConfigError
from evaluators.evaluator import EvalTarget
from evaluators.runner import run_evaluator
from evaluators.tasks.registry import select

# lm_eval's and its dependencies' own.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

TASK = """\
task: tea
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{text}}}}"
doc_to_choice: ["A", "B"]
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.json"
    made = [{"text": f"Tea {n}?", "answer": "AB"[n % 2]} for n in range(5)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    (tmp_path / "tea.yaml").write_text(TASK.format(rows=rows))
    return tmp_path


def test_a_recipe_names_a_task(folder: Path, tiny_model_dir: Path) -> None:
    import transformers

    options = {"include_path": str(folder), "num_fewshot": 0}
    config = BenchmarkConfig(type="benchmark", name="lm_eval/tea", options=options)
    evaluator = make_evaluator(config, None)
    assert config.key == evaluator.name == "lm_eval_tea"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    result = run_evaluator(evaluator, EvalTarget(model, tokenizer))
    assert (result.primary, result.num_errors, len(result.records)) == ("acc", 0, 5)
    assert result.metrics["acc"].n == 5


def test_a_typo_is_found_before_a_model_is_loaded() -> None:
    with pytest.raises(ValidationError, match="num_shots"):
        BenchmarkConfig(type="benchmark", name="lm_eval/tea", options={"num_shots": 1})
    with pytest.raises(ValidationError, match="lm_eval/TASK"):
        BenchmarkConfig(type="benchmark", name="lm_eval/")
    with pytest.raises(ConfigError, match="lm_eval/TASK"):
        select(["lm_evaluate/tea"])


def test_the_command_measures_a_task_and_reports_one_that_does_not_exist(
    folder: Path,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = folder / "out"
    command = [
        *("agenttuning", "evaluate", "--model", str(tiny_model_dir), "--limit", "3"),
        *("--suite", "lm_eval/tea,lm_eval/coffee", "--out", str(out), "--json"),
        *("--option", f"lm_eval/tea.include_path={folder}"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    with suppress(SystemExit):
        cli.main()
    tea, coffee = json.loads(capfd.readouterr().out)["tasks"]
    assert (tea["name"], tea["suite"], tea["metrics"]["acc"]["n"]) == ("lm_eval_tea", "general", 3)
    assert coffee["metrics"] == {}
    assert "'coffee' is neither one of lm_eval's" in coffee["reason"]
    lines = (out / "transcripts/lm_eval_tea.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 4
