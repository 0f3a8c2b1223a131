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
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_builders.mixing import MixOrder

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]

NUM_AGENT, NUM_GENERAL, HOLDOUT = 9, 40, 4
STEPS, BATCH, MICRO = 12, 8, 2  # optimizer steps, rows in a global and in a micro batch
SAVE, EVAL = 3, 4  # steps between checkpoints and between evaluations
KILL = 8, 1  # step and micro batch, from 0: after the evaluation of step 8, which comes again
CHECKPOINT = KILL[0] // SAVE * SAVE
ETA, SEED = 0.25, 7
RANKS = 2

Line = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        exit_code: Of its process.
        lines: What each rank trained on, a micro batch a line.
        output: Folder of the trained model.
    """

    exit_code: int
    lines: tuple[tuple[Line, ...], ...]
    output: Path

    def batches(self) -> list[tuple[int, int, list[int], str]]:
        """Micro batches in the order of the mix: of a step, first each rank's first one."""
        lines = [
            (line["step"], line["micro"], rank, line)
            for rank, lines in enumerate(self.lines)
            for line in lines
        ]
        lines.sort(key=lambda item: item[:3])
        return [
            (step, micro * len(self.lines) + rank, line["shape"], line["batch"])
            for step, micro, rank, line in lines
        ]


@dataclass(frozen=True)
class Runs:
    """A run that is never interrupted, one that is killed, and the same one started again."""

    whole: Run
    killed: Run
    resumed: Run


def write_chats(path: Path, name: str, number: int) -> Path:
    """Conversations of two exchanges, no two alike, of very different lengths."""
    rng = random.Random(name)
    words = ["table", "select", "weather", "paper", "river", "count", "green", "seven"]

    def turn(role: str, number: int) -> dict[str, str]:
        text = " ".join(rng.choices(words, k=rng.randrange(2, 25)))
        return {"role": role, "content": f"{name} {number}: {text}"}

    chats = [
        [turn(role, number) for role in ("user", "assistant") * 2] for number in range(number)
    ]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), "utf-8")
    return path


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


def axolotl_config(sources: dict[str, str], folder: Path, ranks: int = 1) -> Path:
    """A recipe; the same file starts and resumes a run."""
    recipe = {
        "base_model": sources["model"],
        "plugins": ["agenttuning_plugin.AgentTuningPlugin", "resume_axolotl.RecorderPlugin"],
        "agenttuning": {
            "eta": ETA,
            "agent": sources["agent"],
            "general": sources["general"],
            "holdout": HOLDOUT,
            "evaluators": [{"type": "general_loss", "every": EVAL}],
        },
        "sequence_len": 512,
        "max_steps": STEPS,
        "micro_batch_size": MICRO,
        "gradient_accumulation_steps": BATCH // MICRO // ranks,
        "learning_rate": 1e-3,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "seed": SEED,
        "attn_implementation": "sdpa",
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "dataset_num_proc": 1,
        "dataloader_num_workers": 0,
        "output_dir": str(folder / "out"),
        "dataset_prepared_path": str(folder / "prepared"),
        "save_steps": SAVE,
        "logging_steps": 1,
        "auto_resume_from_checkpoints": True,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    return path


def trl_config(sources: dict[str, str], folder: Path, ranks: int = 1) -> Path:
    """Settings for resume_trl.py, which divides the batch among its ranks by itself."""
    config = {
        **sources,
        "eta": ETA,
        "holdout": HOLDOUT,
        "max_length": 512,
        "steps": STEPS,
        "batch": BATCH,
        "micro_batch": MICRO,
        "save_steps": SAVE,
        "eval_steps": EVAL,
        "seed": SEED,
        "output": str(folder / "out"),
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    return path


CONFIGS = {"axolotl": axolotl_config, "trl": trl_config}
TRAINERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in CONFIGS
]


def environment() -> dict[str, str]:
    """Environment of the training processes: one thread each, no network."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "1",
    }


def read_record(record: Path) -> tuple[tuple[Line, ...], ...]:
    files = [record.with_name(f"{record.name}.{rank}") for rank in range(RANKS)]
    return tuple(
        tuple(json.loads(line) for line in file.read_text("utf-8").splitlines())
        for file in files
        if file.exists()
    )


def death(step: int, micro: int) -> dict[str, str]:
    return {"RESUME_KILL": f"{step}:{micro}"}


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest,
    sources: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """Runs of one trainer, one after another, each a process."""
    name = request.param
    folder = tmp_path_factory.mktemp(f"resume-{name}")
    jobs = []
    for run, place in (("whole", "whole"), ("killed", "broken"), ("resumed", "broken")):
        (folder / place).mkdir(exist_ok=True)
        variables = {"RESUME_RECORD": str(folder / run)}
        variables |= death(*KILL) if run == "killed" else {}
        config = CONFIGS[name](sources, folder / place)
        log = str(folder / f"{run}.log")
        jobs.append({"config": str(config), "log": log, "environment": variables})
    (folder / "runs.json").write_text(json.dumps(jobs), "utf-8")
    done = subprocess.run(
        [sys.executable, str(HERE / f"resume_{name}.py"), str(folder / "runs.json")],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    codes = [int(line) for line in done.stdout.splitlines()]
    assert codes == [0, -signal.SIGKILL, 0], "\n".join(
        Path(job["log"]).read_text("utf-8")[-3000:] for job in jobs
    )
    outputs = [folder / place / "out" for place in ("whole", "broken", "broken")]
    records = [read_record(folder / run) for run in ("whole", "killed", "resumed")]
    return Runs(*(Run(*parts) for parts in zip(codes, records, outputs, strict=True)))


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


def mix_order() -> MixOrder:
    return MixOrder(NUM_AGENT, NUM_GENERAL - HOLDOUT, ETA, SEED, STEPS * BATCH, block=BATCH)


def test_death_falls_in_the_second_pass() -> None:
    agent, _ = mix_order().rows(__import__("numpy").arange(STEPS * BATCH))
    for step in (CHECKPOINT, KILL[0]):
        assert 1 <= agent[: step * BATCH].sum() / NUM_AGENT < 2
    assert agent.sum() / NUM_AGENT > 2


@both_trainers
def test_losses_and_weights_are_the_same_to_the_last_bit(runs: Runs) -> None:
    def losses(run: Run) -> list[str]:
        return [line["loss"] for line in run.lines[0]]

    assert losses(runs.resumed) == losses(runs.whole)[CHECKPOINT * BATCH // MICRO :]
    weights = [run.output / "model.safetensors" for run in (runs.whole, runs.resumed)]
    assert digest(weights[0]) == digest(weights[1])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@both_trainers
def test_each_evaluation_is_recorded_once(runs: Runs) -> None:
    whole, resumed = (evaluations(run.output) for run in (runs.whole, runs.resumed))
    assert [row["step"] for row in whole] == [0, 4, 8, 12]
    assert resumed == whole


def evaluations(output: Path) -> list[dict[str, Any]]:
    lines = (output / "evaluations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]
