"""`agenttuning check` compares a run with a device and with the space on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[eval]'")

from agenttuning_plugin.config.findings import Finding
from agenttuning_plugin.estimates.devices import Device
from agenttuning_plugin.estimates.shape import TrainingShape
from agenttuning_plugin.preflight.device import Hardware, check_hardware, device_of
from agenttuning_plugin.preflight.saving import Saving, check_saving
from dataset_builders.errors import ConfigError

BIG = TrainingShape(method="full", micro_batch=4, sequence_len=4096, dtype="bfloat16")


def found(
    model: Path, shape: TrainingShape, device: Device | None, for_gpu: bool = True
) -> tuple[dict[str, Finding], dict[str, Any]]:
    facts: dict[str, Any] = {}
    hardware = Hardware(str(model), lambda kind: shape, for_gpu, device)
    return {each.what: each for each in check_hardware(hardware, 100, facts)}, facts


def test_a_device_is_named_by_its_memory_and_speed() -> None:
    device = device_of("A100 80GB")
    assert (device.kind, device.name, device.memory) == ("cuda", "A100", 80 * 2**30)
    assert device.peak == 312e12
    assert device_of("24 GB").peak is None
    for text in ("A100", "80", "lots", "0GB"):
        with pytest.raises(ConfigError, match=f"device: found '{text}', expected a GPU's memory"):
            device_of(text)


def test_a_run_is_compared_with_the_devices_memory(tiny_model_dir: Path) -> None:
    findings, facts = found(tiny_model_dir, BIG, device_of("A100 80GB"))
    assert facts["memory"]["total"] == sum(facts["memory"]["parts"].values())
    assert findings["fit"].level == "ok"
    assert "for 100 steps (estimate)" in findings["time"].detail
    low, high = facts["seconds"]
    assert 0 < low < high


def test_a_run_that_does_not_fit_gets_settings_with_which_it_would(tiny_model_dir: Path) -> None:
    _, facts = found(tiny_model_dir, BIG, device_of("80GB"))
    smaller = (facts["memory"]["total"] - 2**23) / 2**30
    findings, _ = found(tiny_model_dir, BIG, device_of(f"{smaller}GB"))
    fit = findings["fit"]
    assert fit.level == "warning"
    assert fit.detail.startswith("does not fit: 10")
    assert "fits with gradient_checkpointing: true" in fit.detail
    findings, _ = found(tiny_model_dir, BIG, device_of("0.01GB"))
    detail = findings["fit"].detail
    assert "not even with" in detail
    assert "micro_batch_size: 1 and gradient_accumulation_steps: 4" in detail
    assert "sequence_len: 2048" in detail


def test_a_run_written_for_a_gpu_says_so_where_there_is_none(tiny_model_dir: Path) -> None:
    here = Device("cpu", "CPU, 2 threads", 16 * 2**30, peak=1e10)
    findings, _ = found(tiny_model_dir, BIG, here)
    assert findings["hardware"].level == "warning"
    assert "no GPU here (CPU, 2 threads, 16.0 GB of main memory)" in findings["hardware"].detail
    assert "fit" not in findings
    findings, _ = found(tiny_model_dir, BIG, here, for_gpu=False)
    assert {each.level for each in findings.values()} == {"ok"}
    assert "of 16.0 GB" in findings["fit"].detail


def test_a_model_that_is_not_known_here_is_a_warning(tmp_path: Path) -> None:
    findings, facts = found(tmp_path / "none", BIG, device_of("24GB"))
    assert findings["memory"].level == "warning"
    assert findings["memory"].detail.startswith("not estimated: base_model: ")
    assert "memory" not in facts


MEMORY = {
    "parts": {"weights": 6 * 10**9, "optimizer states": 12 * 10**9},
    "weight_shards": 2,
    "state_shards": 2,
}


def saved(folder: Path, **keys: Any) -> tuple[dict[str, Finding], dict[str, Any]]:
    facts: dict[str, Any] = {"memory": MEMORY}
    settings = {"resumes": False, "interval": 10, "limit": None, **keys}
    saving = Saving(folder, **settings)
    return {each.what: each for each in check_saving(saving, 100, facts)}, facts["disk"]


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({}, 10),
        ({"limit": 2}, 3),  # the new one is written before the oldest is deleted
        ({"interval": 0.25}, 4),
        ({"interval": 1000}, 1),
        ({"interval": None}, 0),
    ],
)
def test_checkpoints_are_compared_with_the_free_space(
    keys: dict[str, Any], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 12 * 10**9 + number * 36 * 10**9
    for free, level in ((needed, "ok"), (needed - 1, "warning")):
        usage = (0, 0, free)
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": usage[2]}))  # noqa: B023
        findings, disk = saved(tmp_path / "new/out", **keys)
        assert findings["checkpoints"].level == level
        assert (disk["needed"], disk["checkpoints"]) == (needed, number)


def test_checkpoints_of_another_run_are_named(tmp_path: Path) -> None:
    assert "output folder" not in saved(tmp_path)[0]
    (tmp_path / "checkpoint-50").mkdir()
    finding = saved(tmp_path)[0]["output folder"]
    assert finding.level == "warning"
    assert f"resume_from_checkpoint: {tmp_path}/checkpoint-50" in finding.detail
    assert saved(tmp_path, resumes=True)[0]["output folder"].level == "ok"
