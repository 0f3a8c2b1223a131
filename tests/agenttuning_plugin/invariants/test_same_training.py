"""A section trains alike with each trainer, whatever the cut of its batch, and after a kill.

The curves are stored: each stack of trainer and libraries compares its own with them. All runs of
a trainer share a process, as most of their time goes into imports. The whole matrix is slow; its
differences are in benchmarks/results/invariants.json.
"""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[trl]'")

from tests.support.training_cells import digest
from tests.support.training_checks import (
    Check,
    Runs,
    all_checks,
    cells_of,
    curve_check,
    cut_check,
    reference,
)
from tests.support.training_runs import PROGRAMS, run_cells

FAST = {
    # test_resume.py kills runs of both.
    "axolotl": [curve_check("axolotl", "qlora", packed=True)],
    "trl": [
        curve_check("trl", "qlora", packed=True),
        cut_check("trl", "lora", packed=True, cuts=((4, 1), (1, 2))),
    ],
}

each_trainer = pytest.mark.parametrize("trainer", list(PROGRAMS), indirect=True, scope="module")


@pytest.fixture(scope="module")
def fast_runs(
    trainer: str, inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    return run_cells(cells_of(FAST[trainer]), inputs, tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def all_runs(
    trainer: str, inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    return run_cells(cells_of(all_checks(trainer)), inputs, tmp_path_factory.mktemp("all"))


def test_inputs_are_those_of_the_stored_curves(inputs: dict[str, str]) -> None:
    assert digest(inputs) == reference()["inputs"]


@each_trainer
def test_the_same_training(trainer: str, fast_runs: Runs) -> None:
    assert not missed(FAST[trainer], fast_runs)


@pytest.mark.slow
@each_trainer
def test_the_same_training_in_all_forms(trainer: str, all_runs: Runs) -> None:
    assert not missed(all_checks(trainer), all_runs)


def missed(checks: list[Check], runs: Runs) -> dict[str, float]:
    """Differences above their limit, by check."""
    found = {check.name: (check.value(runs), check.bar) for check in checks}
    return {name: value for name, (value, bar) in found.items() if not value <= bar}
