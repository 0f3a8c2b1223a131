"""Runs that are killed and go on, and figures of one step that come one after another."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import ConfigError, EvaluatorError

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.evaluator import EvalTarget, Evaluator, Record  # noqa: E402
from evaluators.models.fingerprint import fingerprint  # noqa: E402
from evaluators.results.resume import KEPT  # noqa: E402
from evaluators.training.callback import EvaluationPolicy, EvaluatorCallback, Schedule  # noqa: E402
from evaluators.training.floors import BEST_KEY, BestCheckpoint, ScoreFloor  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)

NUM_ITEMS = 6


class Scored(Evaluator):
    """Scores what it is told by run; counts what it measures, and may be killed midway."""

    suite = "held-in"
    primary = "success"

    def __init__(self, name: str, *runs: float, killed_at: tuple[int, int] | None = None) -> None:
        self.name = name
        self._runs = list(runs)
        self._killed_at = killed_at  # run and item
        self.measured: list[list[str]] = []

    def items(self) -> tuple[str, ...]:
        return tuple(f"t{number}" for number in range(NUM_ITEMS))

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        run = len(self.measured)
        self.measured.append(list(items))
        good = round(self._runs[min(run, len(self._runs) - 1)] * NUM_ITEMS)
        for number, item in enumerate(items):
            if self._killed_at == (run, number):
                raise KeyboardInterrupt
            score = float(int(item[1:]) < good)
            finished({"item": item, "scores": {"success": score}, "error": ""})


@pytest.fixture
def make(tiny_model_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    def trainer(
        schedules: list[Schedule],
        policy: EvaluationPolicy | None = None,
        *,
        steps: int = 4,
        seed: int = 5,
        **settings: Any,
    ) -> Any:
        rows = [{"input_ids": [7, n, n + 1], "labels": [7, n, n + 1]} for n in range(32)]
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=2,
            logging_steps=1,
            report_to=settings.pop("report_to", []),
            save_strategy=settings.pop("save_strategy", "no"),
            use_cpu=True,
            seed=seed,
            disable_tqdm=True,
            lr_scheduler_type="constant",
            **settings,
        )
        made = transformers.Trainer(
            transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
            arguments,
            train_dataset=rows,
            eval_dataset=rows[:2],
            processing_class=transformers.AutoTokenizer.from_pretrained(tiny_model_dir),
        )
        EvaluatorCallback.install(made, schedules, policy=policy)
        return made

    return trainer


def logged(trainer: Any, key: str) -> dict[int, float]:
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (folder / "evaluations.jsonl").read_text("utf-8").splitlines()))


def test_an_evaluation_of_the_base_that_was_killed_is_taken_up(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make([Schedule(Scored("a", 1.0, killed_at=(0, 4)))], steps=1).train()
    second = Scored("a", 1.0)
    make([Schedule(second)], steps=1).train()
    assert second.measured == [["t4", "t5"], [f"t{n}" for n in range(NUM_ITEMS)]]
    assert [len(row["records"]) for row in rows_of(tmp_path)] == [NUM_ITEMS] * 2
    assert not (tmp_path / KEPT).exists()


def test_one_of_other_weights_is_not_taken_up(
    make: Callable[..., Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make([Schedule(Scored("a", 1.0, killed_at=(0, 4)))], steps=1).train()
    second = Scored("a", 1.0)
    trainer = make([Schedule(second)], steps=1)
    with torch.no_grad():
        trainer.model.lm_head.weight[3] += 1.0
    trainer.train()
    assert len(second.measured[0]) == NUM_ITEMS


def test_after_a_checkpoint_steps_that_train_alike_are_not_measured_again(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed in the evaluation at step 3; on a CPU the same weights come again."""
    first = Scored("a", 0.0, 0.5, 1.0, killed_at=(3, 2))
    saving = {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        make([Schedule(first, every=1)], **saving).train()
    shutil.rmtree(tmp_path / "checkpoint-2")  # so that step 2 is trained again, too
    second = Scored("a", 1.0)
    trainer = make([Schedule(second, every=1)])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert second.measured[:2] == [[], ["t2", "t3", "t4", "t5"]]
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1, 2, 3, 4]


def test_the_best_step_before_a_kill_stays_the_best(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    def policy() -> EvaluationPolicy:
        return EvaluationPolicy(best=BestCheckpoint("agent", ScoreFloor("talk", by=0.1)))

    def panel(*agent: float) -> list[Schedule]:
        return [Schedule(Scored("agent", *agent), every=1), Schedule(Scored("talk", 1.0), every=1)]

    make(panel(0.0, 1.0, 0.5), policy(), steps=2, save_strategy="steps", save_steps=2).train()
    best = json.loads((tmp_path / "best.json").read_text("utf-8"))
    assert (best["step"], best["score"]) == (1, 1.0)
    trainer = make(panel(0.5), policy())
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    best = json.loads((tmp_path / "best.json").read_text("utf-8"))
    assert (best["step"], best["score"]) == (1, 1.0)
    # A new run does not inherit it.
    make(panel(0.0), policy(), steps=1).train()
    assert json.loads((tmp_path / "best.json").read_text("utf-8"))["step"] == 0


def test_evaluators_of_one_step_that_run_at_different_times_count_together(
    make: Callable[..., Any],
) -> None:
    """`talk` runs on its cadence, `agent` when the trainer evaluates."""
    trainer = make(
        [Schedule(Scored("agent", 0.0, 0.5, 1.0)), Schedule(Scored("talk", 1.0), every=2)],
        EvaluationPolicy(best=BestCheckpoint("agent", ScoreFloor("talk"))),
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_KEY,
        greater_is_better=True,
    )
    trainer.train()
    assert logged(trainer, BEST_KEY) == {0: 0.0, 2: 0.5, 4: 1.0}
    assert trainer.state.best_global_step == 4


def test_a_figure_that_could_not_be_measured_is_the_worst_one(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It would else end training: the trainer has no way around an absent metric."""

    class Failing(Scored):
        def measure(self, *_: Any) -> None:
            raise EvaluatorError("no browser")

    trainer = make(
        [Schedule(Failing("agent"))],
        steps=2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="agent_success",
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.state.best_global_step is None
    assert trainer.state.best_metric == -math.inf
    assert "found no eval_agent_success" in caplog.text


def test_a_best_model_that_is_never_looked_for_is_told(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    make([Schedule(Scored("a", 1.0))], metric_for_best_model="eval_a_success")
    assert "set eval_strategy and eval_steps" in caplog.text
    with pytest.raises(ConfigError, match=f"found {BEST_KEY}, expected `best`"):
        make([Schedule(Scored("a", 1.0))], metric_for_best_model=BEST_KEY)


def test_the_trainers_own_evaluation_before_training_measures_nothing(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    told = Scored("a", 1.0)
    trainer = make([Schedule(told)], steps=1, metric_for_best_model="eval_a_success")
    trainer.evaluate()
    assert told.measured == []
    trainer.train()
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1]


def test_strict_ends_training_where_every_task_fails(make: Callable[..., Any]) -> None:
    class Hopeless(Scored):
        def measure(
            self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
        ) -> None:
            for item in items:
                finished({"item": item, "scores": {}, "error": "no server"})

    with pytest.raises(EvaluatorError, match="a: all 6 tasks failed: no server"):
        make([Schedule(Hopeless("a"))], EvaluationPolicy(strict=True)).train()


def test_transcripts_that_are_damaged_are_put_aside(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make([Schedule(Scored("a", 1.0, killed_at=(0, 4)))], steps=1).train()
    path = tmp_path / "transcripts/step-000000/a.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[0], "{\n", *lines[1:]]), "utf-8")
    second = Scored("a", 1.0)
    make([Schedule(second)], steps=1).train()
    assert len(second.measured[0]) == NUM_ITEMS
    assert path.with_suffix(".jsonl.other").read_text("utf-8").startswith(lines[0])


def test_a_fingerprint_tells_weights_apart(tiny_model_dir: Path) -> None:
    models = [transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir) for _ in range(2)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1 + 1e-6)
    assert fingerprint(models[0]) != fingerprint(models[1])


def told_wandb(log: Path) -> bytes:
    """What W&B's own file holds, without the heads of 7 bytes that stand between its pieces."""
    data, block, told = log.read_bytes(), 2**15, b""
    for start in range(0, len(data), block):
        place, end = start + 7 * (start == 0), min(start + block, len(data))
        while place + 7 <= end:
            length = int.from_bytes(data[place + 4 : place + 6], "little")
            told += data[place + 7 : place + 7 + length]
            place += 7 + length
    return told


@pytest.mark.slow
def test_figures_reach_wandb_without_a_network(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    make([Schedule(Scored("a", 0.0, 1.0))], steps=1, report_to=["wandb"]).train()
    wandb.finish()  # ends the program that writes
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 30
    while told_wandb(log).count(b"eval/a_success") < 2 and time.monotonic() < until:
        time.sleep(0.1)  # The program that writes may outlive `finish` on a busy machine.
    assert told_wandb(log).count(b"eval/a_success") >= 2
