"""`agenttuning check` on TRL scripts, and on a section with settings from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.preflight import script as script_check
from agenttuning_plugin.preflight.report import Report
from agenttuning_plugin.preflight.script import script_report
from agenttuning_plugin.preflight.section import GivenSettings, section_report

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "trl_sft.py"

NO_RUN = (
    "from types import SimpleNamespace\n"
    "run = SimpleNamespace(train_dataset=None, data_collator=None); (lambda *_, **__: None)"
)
"""In place of `run = TrainingRun`."""

Script = Callable[..., Path]


def talk(question: str, answer: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """Agent and general data as files."""
    sides = {
        "agent": [talk(f"task {i}", f"Thought: look.\nAction: step {i}") for i in range(6)],
        "general": [talk(f"question {i}", f"It is {i}.") for i in range(80)],
    }
    found = {}
    for side, rows in sides.items():
        path = tmp_path / f"{side}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        found[side] = str(path)
    return found


@pytest.fixture
def script(tmp_path: Path, sources: dict[str, str], tiny_model_dir: Path) -> Script:
    """The shipped script with a tiny model, local data and an output folder here, and changes."""

    def write(**changes: str) -> Path:
        text = RECIPE.read_text("utf-8")
        fixed = {
            "meta-llama/Llama-2-7b-chat-hf": str(tiny_model_dir),
            "zai-org/AgentInstruct": sources["agent"],
            "anon8231489123/ShareGPT_Vicuna_unfiltered": sources["general"],
            "outputs/trl-agentlm-7b-qlora": str(tmp_path / "out"),
            'chat_template="llama-2", ': "",
            ', pad_token="<unk>"': "",
            "max_steps=2000": "max_steps=4",
        }
        for old, new in {**fixed, **changes}.items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "train_trl.py"
        path.write_text(text, "utf-8")
        return path

    return write


def errors_of(report: Report) -> list[str]:
    return [finding.detail for finding in report.of("error")]


def test_the_shipped_script_is_checked_and_trains_nothing(script: Script, tmp_path: Path) -> None:
    path = script()
    report = script_report(path)
    assert not errors_of(report)
    assert report.facts["steps"] == 4
    assert report.facts["mix"]["agent_share"]["examples"] == pytest.approx(0.2, abs=0.01)
    assert report.facts["loss"]["normalization"] == "tokens"
    assert not (tmp_path / "out").exists()
    groups = {finding.group for finding in report.findings}
    assert groups == {"recipe", "data", "mix", "training", "device", "evaluators"}
    # LoRA of rank 64 on 4-bit weights, as the trainer of the script would make it.
    parts = report.facts["memory"]["parts"]
    assert parts["adapters"]
    assert report.facts["memory"]["trainable"] < report.facts["memory"]["parameters"] * 20


def test_a_check_leaves_the_trainers_as_they_were(script: Script) -> None:
    import transformers
    from transformers import training_args
    from trl import SFTTrainer

    names = (SFTTrainer.__init__, transformers.Trainer.__init__)
    loads = transformers.PreTrainedModel.from_pretrained
    available = training_args.is_torch_bf16_gpu_available
    script_report(script())
    assert names == (SFTTrainer.__init__, transformers.Trainer.__init__)
    assert loads == transformers.PreTrainedModel.from_pretrained
    assert available is training_args.is_torch_bf16_gpu_available


def test_a_full_check_of_a_script_gives_the_rows_of_its_run(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agenttuning_plugin.training_data.settings.CACHE", tmp_path / "cache")
    path = script()
    part, full = script_report(path), script_report(path, full=True)
    assert part.facts["mix"] == full.facts["mix"]
    assert [each for each in (tmp_path / "cache/prepared/agenttuning").iterdir() if each.is_dir()]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("run = TrainingRun", NO_RUN, "makes a trainer before it makes a TrainingRun"),
        ("run = TrainingRun", "raise SystemExit(3)\nrun = TrainingRun", "SystemExit: 3"),
        ("run = TrainingRun", "1 / 0\nrun = TrainingRun", ":25: ZeroDivisionError"),
        ("eta=0.2,", "etta=0.2,", "agenttuning.etta: unknown key, did you mean eta?"),
        ('agent="', 'agent="/no', "no such file or folder"),
        ("max_length=4096", "max_length=8", "agent: no trainable row is left"),
    ],
)
def test_what_stops_a_script_is_one_line(old: str, new: str, message: str, script: Script) -> None:
    path = script(**{old: new})
    (wrong,) = errors_of(script_report(path))
    assert message in wrong
    assert "\n" not in wrong


def test_a_script_that_does_not_compile_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n", "utf-8")
    (wrong,) = errors_of(script_report(path))
    assert re.search(r"SyntaxError: .*broken\.py, line 1", wrong)
    (wrong,) = errors_of(script_report(tmp_path / "none.py"))
    assert wrong.endswith("none.py: no such script")


def test_a_script_that_loads_its_model_first_is_refused(script: Script) -> None:
    first = (
        "from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained(MODEL)"
    )
    path = script(**{"run = TrainingRun": f"{first}\nrun = TrainingRun"})
    (wrong,) = errors_of(script_report(path))
    assert "before it makes a TrainingRun" in wrong


def test_a_stop_cannot_be_caught_by_the_script() -> None:
    assert not issubclass(script_check._Stop, Exception)


def test_a_section_is_checked_with_the_settings_given(
    tmp_path: Path, sources: dict[str, str], tiny_model_dir: Path
) -> None:
    import yaml

    path = tmp_path / "section.yaml"
    section = {**sources, "eta": 0.25, "holdout": 4, "evaluators": [{"type": "general_loss"}]}
    path.write_text(yaml.safe_dump({"agenttuning": section}), "utf-8")
    given = GivenSettings(str(tiny_model_dir), 128, 2, 4, 10, method="lora")
    report = section_report(path, given)
    assert report.ok
    assert report.facts["steps"] == 10
    assert report.facts["sources"][0]["drawn"] == 20  # 0.25 of 10 x 2 x 4
    assert report.facts["memory"]["trainable"] < report.facts["memory"]["parameters"]
    absent = GivenSettings(str(tmp_path / "none"), 128, steps=10)
    (wrong,) = errors_of(section_report(path, absent))
    assert "none" in wrong
    path.write_text("eta: 1\n", "utf-8")
    (wrong,) = errors_of(section_report(path, given))
    assert "agenttuning: the section is missing" in wrong


def test_no_length_of_a_run_is_an_error(
    tmp_path: Path, sources: dict[str, str], tiny_model_dir: Path
) -> None:
    import yaml

    path = tmp_path / "section.yaml"
    path.write_text(yaml.safe_dump({"agenttuning": {**sources, "holdout": 4}}), "utf-8")
    (wrong,) = errors_of(section_report(path, GivenSettings(str(tiny_model_dir), 128)))
    assert wrong == "max_steps: missing, expected a number of steps"
