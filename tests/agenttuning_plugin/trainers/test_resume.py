"""Killed in the middle of training and started again: the rest is as if nothing had happened.

Real trainers in processes of their own. `whole` is never interrupted. `killed` dies by
SIGKILL in the second pass over the agent data, after a part of a global batch, and the same
command then runs again as `resumed`. What they trained on is compared tensor by tensor,
byte for byte.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="pip install 'agenttuning-plugin[trl]'")

from agenttuning_plugin.reports.source_loss import read_losses
from dataset_builders.mixing.order import MixOrder
from tests.support.resume_settings import (
    BATCH,
    CHECKPOINT,
    CONFIGS,
    ETA,
    HOLDOUT,
    KILL,
    MICRO,
    NUM_AGENT,
    NUM_GENERAL,
    RANKS,
    SEED,
    STEPS,
    write_chats,
)
from tests.support.training_runs import (
    HERE,
    Line,
    Run,
    environment_of,
    read_record,
    run_jobs,
    start,
)


@dataclass(frozen=True)
class Runs:
    """A run that is never interrupted; one that is killed, started again, and once more."""

    trainer: str
    whole: Run
    killed: Run
    resumed: Run
    again: Run


@pytest.fixture(scope="module")
def sources(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Places of the data and of the model, which has dropout: it has to be resumed, too."""
    folder = tmp_path_factory.mktemp("resume")
    model = folder / "model"
    shutil.copytree(tiny_model_dir, model)
    config = json.loads((model / "config.json").read_text("utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.1}), "utf-8")
    return {
        "model": str(model),
        "agent": str(write_chats(folder / "agent.jsonl", "agent", NUM_AGENT)),
        "general": str(write_chats(folder / "general.jsonl", "general", NUM_GENERAL)),
    }


TRAINERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in CONFIGS
]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest,
    sources: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """Runs of one trainer, one after another, each a process."""
    name = request.param
    folder = tmp_path_factory.mktemp(f"resume-{name}")
    places = {"whole": "whole", "killed": "broken", "resumed": "broken", "again": "broken"}
    jobs = []
    for run, place in places.items():
        (folder / place).mkdir(exist_ok=True)
        config = CONFIGS[name](sources, folder / place)
        variables = environment_of(folder / run, KILL if run == "killed" else None)
        log = str(folder / f"{run}.log")
        jobs.append({"config": str(config), "log": log, "environment": variables})
    codes = run_jobs(f"resume_{name}.py", jobs, folder)
    assert codes == [0, -signal.SIGKILL, 0, 0], "\n".join(
        Path(job["log"]).read_text("utf-8")[-3000:] for job in jobs
    )
    return Runs(
        name,
        **{run: Run(read_record(folder / run), folder / at / "out") for run, at in places.items()},
    )


both_trainers = pytest.mark.parametrize("runs", TRAINERS, indirect=True, scope="module")


@both_trainers
def test_batches_go_on_as_if_nothing_had_happened(runs: Runs) -> None:
    micro_batches = BATCH // MICRO
    whole = runs.whole.batches()
    assert [item[:2] for item in whole] == [
        (step, micro) for step in range(STEPS) for micro in range(micro_batches)
    ]
    assert {shape[0] for _, _, shape, _ in whole} == {MICRO}
    digests = [digest for *_, digest in whole]
    assert len(set(digests)) == len(digests)  # no batch could be taken for another

    died = KILL[0] * micro_batches + KILL[1] + 1
    assert runs.killed.batches() == whole[:died]
    assert runs.resumed.batches() == whole[CHECKPOINT * micro_batches :]


def test_death_falls_in_the_second_pass() -> None:
    order = MixOrder(NUM_AGENT, NUM_GENERAL - HOLDOUT, ETA, SEED, STEPS * BATCH, block=BATCH)
    agent, rows = order.rows(np.arange(order.num_examples))
    passes = np.cumsum(agent) / NUM_AGENT
    assert passes[-1] > 2
    for step in (CHECKPOINT, KILL[0]):
        assert 1 < passes[step * BATCH - 1] < 2
    # Every row was there before, so a batch of the second pass can only be told by its order.
    assert set(rows[agent][:NUM_AGENT]) == set(range(NUM_AGENT))
    assert list(rows[agent][:NUM_AGENT]) != list(rows[agent][NUM_AGENT : 2 * NUM_AGENT])


@both_trainers
def test_losses_and_weights_are_the_same_to_the_last_bit(runs: Runs) -> None:
    def losses(run: Run) -> list[str]:
        return [line["loss"] for line in run.lines[0]]

    assert losses(runs.resumed) == losses(runs.whole)[CHECKPOINT * BATCH // MICRO :]
    assert weights(runs.resumed) == weights(runs.whole)
    by_source = read_losses(runs.whole.output)
    assert read_losses(runs.resumed.output) == by_source
    assert bool(by_source) == (runs.trainer == "axolotl")  # The other has no `TrainingRun`.


def weights(run: Run) -> str:
    """Hash of the final weights."""
    return hashlib.sha256((run.output / "model.safetensors").read_bytes()).hexdigest()


@both_trainers
def test_each_evaluation_is_recorded_once(runs: Runs) -> None:
    whole = evaluations(runs.whole)
    assert [row["step"] for row in whole] == [0, 4, 8, 12]
    assert evaluations(runs.resumed) == whole


def evaluations(run: Run) -> list[Line]:
    """Evaluations in the order of their record, without the time that they took."""
    lines = (run.output / "evaluations.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@both_trainers
def test_a_finished_run_started_again_changes_nothing(runs: Runs) -> None:
    assert runs.again.lines == ((),)
    assert weights(runs.again) == weights(runs.whole)
    assert evaluations(runs.again) == evaluations(runs.whole)


PROGRAMS = {
    "axolotl": ["-m", "axolotl.cli.train", "recipe.yaml"],
    "trl": [str(HERE / "resume_trl.py"), "config.json"],
}


@pytest.mark.slow
@both_trainers
def test_two_ranks_go_on_as_one(runs: Runs, sources: dict[str, str], tmp_path: Path) -> None:
    def launch(run: str, ranks: int, kill: tuple[int, int] | None = None) -> Run:
        CONFIGS[runs.trainer](sources, tmp_path, ranks)
        launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [sys.executable, "-m", *launcher, *PROGRAMS[runs.trainer]]
        done = start(command, tmp_path, environment_of(tmp_path / run, kill))
        assert (done.returncode == 0) == (kill is None), done.stderr[-3000:]
        return Run(read_record(tmp_path / run, RANKS), tmp_path / "out")

    whole = runs.whole.batches()
    killed = launch("killed", RANKS, (KILL[0], 0))
    assert len(killed.lines) == RANKS
    batches, died = killed.batches(), KILL[0] * BATCH // MICRO
    # In its last step a rank may die before the other has come as far.
    assert batches[:died] == whole[:died]
    assert set(map(repr, batches[died:])) <= set(map(repr, whole[died : died + RANKS]))
    assert batches[died:]

    resumed = launch("resumed", 1)
    assert resumed.batches() == whole[CHECKPOINT * BATCH // MICRO :]
    assert tokens_by_source(resumed) == tokens_by_source(runs.whole)


def tokens_by_source(run: Run) -> list[dict[str, int]]:
    """Trained tokens by side of each logged step; their losses depend on the ranks' dropout."""
    return [
        {name: facts["tokens"] for name, facts in row["groups"].items()}
        for row in read_losses(run.output)
    ]
