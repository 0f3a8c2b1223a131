"""GPUs, checkpoints, the marker and progress of a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agenttuning_plugin.config.rules import check_recipe
from agenttuning_plugin.config.shipped import read_recipe
from agenttuning_plugin.sweeps.arm_process import command_of, has_ended
from agenttuning_plugin.sweeps.checkpoints import last_checkpoint
from agenttuning_plugin.sweeps.gpus import gpus_of, visible_gpus
from agenttuning_plugin.sweeps.plan import Arm
from agenttuning_plugin.sweeps.progress import Progress, cause_of
from dataset_builders.errors import ConfigError


def test_gpus_are_those_of_the_option_or_the_visible_ones(tmp_path: Path) -> None:
    assert gpus_of("2, 0") == ("2", "0")
    assert gpus_of("") == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1,MIG-5"}) == ("1", "MIG-5")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    assert visible_gpus({"PATH": str(tmp_path)}) == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    program.chmod(0o755)
    assert visible_gpus({"PATH": str(tmp_path)}) == ("0", "1")


def test_an_arm_resumes_from_its_last_whole_checkpoint(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    assert len(command_of(tmp_path)) == 4
    for name, state in (("9", '{"global_step": 9}'), ("10", '{"global_step": 10}'), ("20", '{"gl')):
        folder = tmp_path / f"checkpoint-{name}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-30").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert command_of(tmp_path)[-1] == f"--resume_from_checkpoint={tmp_path}/checkpoint-10"


def test_a_run_has_ended_only_if_its_record_says_so(tmp_path: Path) -> None:
    assert not has_ended(tmp_path)
    record = {"schema": 1, "base": {}}
    (tmp_path / "agenttuning_model.json").write_text(json.dumps(record))
    assert not has_ended(tmp_path)
    (tmp_path / "agenttuning_model.json").write_text(json.dumps({**record, "training": {}}))
    assert has_ended(tmp_path)


def test_progress_estimates_the_rest_from_the_arms_of_this_session(tmp_path: Path) -> None:
    lines: list[str] = []
    arm = Arm("a", tmp_path / "a", 1, {}, "a", {}, ())
    progress = Progress(7, 2, jobs=2, say=lines.append)
    progress.failed(arm, 3)
    assert lines[-1].startswith("a: failed with exit status 3 (log: ")
    assert lines[-1].endswith("a/train.log); 3 of 7 done")
    progress.finished(arm, 100)
    assert "a: finished in 2 min; 4 of 7 done, about 3 min left (until " in lines[-1]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Traceback\n  raise\ntorch.OutOfMemoryError: CUDA\n", "torch.OutOfMemoryError: CUDA"),
        ("agenttuning: error: agent: no such file\n", "error: agent: no such file"),
        ("ValueError: earlier\n$ python -m axolotl.cli.train\nno reason\n", ""),
        ("", ""),
    ],
)
def test_a_failed_arm_states_the_last_error_of_its_log(
    tmp_path: Path, text: str, cause: str
) -> None:
    (tmp_path / "train.log").write_text("$ python -m axolotl.cli.train\n" + text)
    assert cause_of(tmp_path / "train.log") == cause
    assert cause_of(tmp_path / "no.log") == ""


def test_a_recipe_with_the_block_is_not_trained_itself(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = read_recipe(write_recipe(tmp_path, sweep={"seeds": 2}))
    with pytest.raises(ConfigError, match=r"^sweep: found .*`agenttuning sweep RECIPE`"):
        check_recipe(recipe)
    del recipe["sweep"]
    check_recipe(recipe)
