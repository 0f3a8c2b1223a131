"""GPU benchmarks: division of time, failures of single parts, FLOPs, and the page of results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import report, session
from benchmarks.gpu.budget import allowance, run_part
from benchmarks.gpu.cases import Part, parts
from benchmarks.gpu.shapes import SHAPES, flops_per_token, matrix_parameters, peak_flops

ROOT = Path(__file__).resolve().parents[2]
FULL = parts(tiny=False)


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_time_is_divided_as_planned_and_what_is_left_over_goes_to_later_parts() -> None:
    first, *later = FULL
    planned = sum(part.seconds for part in FULL)
    assert planned <= 8 * 60
    assert allowance(first, later, planned) == pytest.approx(first.seconds)
    left = planned - first.seconds + 40  # The first ended 40 s early.
    second = allowance(later[0], later[1:], left)
    assert second == pytest.approx(later[0].seconds * left / (planned - first.seconds))
    assert second > later[0].seconds
    assert allowance(FULL[-1], [], 7.0) == 7.0
    assert allowance(FULL[-1], [], -3.0) == 0.0


PROGRAMS = {
    "fails": "raise MemoryError('CUDA out of memory. Tried to allocate 2 GiB')",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "slow": "import time; time.sleep(60)",
    "works": "save({'rows': [{'leak': 2}]})",
}


def program(folder: Path, name: str) -> None:
    """A stand-in for the package, whose process has written a first result before it goes wrong."""
    gpu = folder / "benchmarks" / "gpu"
    gpu.mkdir(parents=True, exist_ok=True)
    for package in (gpu.parent, gpu):
        (package / "__init__.py").touch()
    (gpu / "process.py").write_text(
        "import json, pathlib, sys\n"
        "save = lambda found: pathlib.Path(sys.argv[2]).write_text(json.dumps(found))\n"
        f"save({{'rows': [{{'leak': 1}}]}})\n{PROGRAMS[name]}\n"
    )


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("fails", "failed", "exit status 1: MemoryError: CUDA out of memory. Tried"),
        ("killed", "failed", "signal SIGKILL"),
        ("slow", "out of time", "ended after 1 s"),
        ("works", "done", ""),
    ],
)
def test_a_part_that_goes_wrong_gives_its_reason_and_what_it_had_measured(
    name: str, status: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = run_part(replace(FULL[0], name=name), 1.0 if name == "slow" else 30.0, tmp_path)
    assert found["status"] == status
    assert found.get("error", "").startswith(reason)
    assert found["measured"] == {"rows": [{"leak": 2 if name == "works" else 1}]}


def test_parts_after_one_that_fails_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown: Any = "unknown"
    wrong = Part("wrong", unknown, 1.0)
    found = session.run_all([wrong, replace(wrong, name="next")], 60.0, tmp_path)
    assert [each["status"] for each in found.values()] == ["failed", "failed"]
    assert found["next"]["error"] == "exit status 1: ValueError: kind: found 'unknown'"
    assert capsys.readouterr().out.count("ValueError: kind: found 'unknown'") == 2
    late = session.run_all([wrong], 2.0, tmp_path)
    assert late["wrong"] == {"status": "out of time", "error": "2 s were left"}


def test_flops_give_the_mfu_that_prime_rl_published_for_its_tokens_per_second() -> None:
    """Its baseline of Qwen3-0.6B at 8,192 on an H100: 26,005.173 tokens/s, MFU 16.8139 %."""
    pytest.importorskip("transformers")
    config = SHAPES["qwen3-0.6b"].config()
    peak = peak_flops("NVIDIA H100 80GB HBM3")
    assert peak
    mfu = 26_005.173345163068 * flops_per_token(config, context=8_192) / peak
    assert 100 * mfu == pytest.approx(16.81390538290134, rel=1e-6)


@pytest.mark.parametrize("name", SHAPES)
def test_matrix_parameters_are_those_of_the_model(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = SHAPES[name].config()
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert matrix_parameters(config) == sum(m.weight.numel() for m in linear)
    full, context = flops_per_token(config, context=0), 100.0
    with_attention = flops_per_token(config, context=context)
    width = config.num_attention_heads * config.head_dim
    assert with_attention - full == 6 * config.num_hidden_layers * width * context
    assert flops_per_token(config, context=0, adapter=10) == full * 4 / 6 + 60


def test_a_device_without_a_known_peak_has_no_mfu() -> None:
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("Tesla T4") is None


def test_the_page_shows_the_committed_results() -> None:
    text = report.README.read_text("utf-8")
    assert report.page(text, report.results()) == text  # python -m benchmarks.gpu.report


def test_parts_that_were_not_run_or_did_not_end_are_said_so() -> None:
    kept = {"name": "x", "seconds": 1.0, "status": "out of time", "error": "ended after 9 s"}
    rows = [{"rank": 16, "batch": 1, "checkpointing": True, "predicted_bytes": 2**30}]
    rows += [rows[0] | {"reason": "OutOfMemoryError: CUDA"}]
    rows[0]["peak_bytes"] = 3 * 2**29
    machine = {"device": "NVIDIA X", "driver": "1", "date": "2026-01-01", "commit": "abc"}
    found = {**machine, "tiny": False, "versions": {"torch": "2"}}
    found["parts"] = {"memory": kept | {"measured": {"rows": rows}}}
    text = report.section([found])
    assert text.count("| not run yet |") == len(FULL) - 1
    assert "| memory | all | out of time, ended after 9 s |" in text
    assert "with checkpointing: GiB | 1.50, 1.00 predicted |" in text
    assert "with checkpointing: GiB | OutOfMemoryError: CUDA, 1.00 predicted |" in text
    assert "not run yet" in report.section([])


def test_peaks_of_all_parts_are_rows_beside_their_predictions() -> None:
    shape = {"method": "qlora", "micro_batch": 2, "sequence_len": 64, "rank": 4}
    shape["checkpointing"] = True
    one = {"training_shape": shape, "predicted_bytes": 90, "predicted_parts": {"weights": 90}}
    full = one | {"training_shape": shape | {"method": "full", "checkpointing": False}}
    measured = {
        "speed": full | {"plugin": {"peak_bytes": 120}, "trl": {"peak_bytes": 110}},
        "memory": {"rows": [one | {"peak_bytes": 100}, one | {"reason": "OutOfMemoryError"}]},
        "isolation": {"rows": [{"leak": 0.0}]},
        "failed": {},
    }
    found = report.memory_rows(measured)
    assert {name: (row["measured"], row["ratio"]) for name, row in found.items()} == {
        "speed: full 2 x 64": (120, 0.75),
        "memory: qlora 2 x 64 rank 4 checkpointing": (100, 0.9),
    }


@pytest.mark.slow
def test_all_parts_run_with_tiny_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("trl", "peft", "bitsandbytes"):
        pytest.importorskip(package)
    out = tmp_path / "result.json"
    options = ["--tiny", "--minutes", "20", "--out", str(out), "--folder", str(tmp_path / "data")]
    monkeypatch.setattr("sys.argv", ["run.py", *options])
    session.main()
    found = json.loads(out.read_text("utf-8"))
    assert found["tiny"]
    assert found["device"]
    assert found["versions"]["trl"] != "not installed"
    assert list(found["parts"]) == [part.name for part in FULL]
    for name, result in found["parts"].items():
        assert result["status"] == "done", (name, result.get("error"))
    for name in ("qlora-7b", "qlora-13b", "full-0.6b"):
        check_speed(found["parts"][name]["measured"])
    check_isolation(found["parts"]["isolation"]["measured"]["rows"])
    evaluators = found["parts"]["evaluators"]["measured"]
    assert 0 < evaluators["share_at_recipe"] < evaluators["share"] < 1
    assert len(evaluators["seconds"]["database"]) == 3  # Before, between and after the steps.
    assert evaluators["oracle_turns"] > 1
    rows = found["parts"]["memory"]["measured"]["rows"]
    assert [(r["rank"], r["checkpointing"], r["batch"]) for r in rows] == [
        (8, True, 1),
        (8, True, 2),
        (8, False, 1),
        (8, False, 2),
    ]
    assert not [row for row in rows if "reason" in row]
    report.section([found | {"tiny": False}])  # Every figure of the page is in the result.


def check_speed(measured: dict[str, Any]) -> None:
    assert measured["same_batches"]
    assert measured["same_losses"]
    assert measured["rounds"] == 2
    assert measured["trl"]["tokens_per_second"] > 0
    assert measured["ratio"] > 0
    assert measured["flops_per_token"] < measured["flops_per_token_full_rows"]
    assert 0.5 < measured["fill"] <= 1


def check_isolation(rows: list[dict[str, Any]]) -> None:
    measured = [row for row in rows if "reason" not in row]
    assert {row["attention"] for row in measured} >= {"sdpa", "eager"}
    for row in measured:
        assert row["leak"] <= 1
        assert row["joined"] > 10 * row["difference"]
        assert row["difference"] < (1e-5 if row["dtype"] == "float32" else 0.05)
