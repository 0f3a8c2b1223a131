"""The end of training: the last step, the best checkpoint, and a trainer that is used again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.errors import ConfigError

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.models.fingerprint import fingerprint  # noqa: E402
from evaluators.tasks.registry import BENCHMARKS  # noqa: E402
from evaluators.training.callback import EvaluationPolicy, EvaluatorCallback, Schedule  # noqa: E402
from evaluators.training.floors import BestCheckpoint, ScoreFloor  # noqa: E402
from tests.agenttuning_plugin.evaluation.test_endpoint_callback import (  # noqa: E402
    NOBODY,
    make_trainer,
    records,
    rows,
    settings,
)
from tests.evaluators.training.test_callback_resume import Scored, logged, make, rows_of  # noqa: E402

__all__ = ["make", "rows"]  # fixtures

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)


def choosing(**more: Any) -> dict[str, Any]:
    """Settings of a trainer that ends with the best checkpoint by the figure of `a`."""
    at = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "a_success"}
    return {**at, **best, "greater_is_better": True, **more}


@pytest.mark.parametrize("when", ["steps", "epoch"])
def test_the_last_step_is_measured_before_the_best_one_is_loaded(
    make: Callable[..., Any], when: str
) -> None:
    class Seeing(Scored):
        """Keeps the fingerprints of what it measures."""

        def measure(self, subject: EvalTarget, *rest: Any) -> None:
            seen.append(fingerprint(subject.model))
            super().measure(subject, *rest)

    seen: list[str] = []
    settings = choosing(eval_strategy=when, save_strategy=when)
    epochs = {"steps": -1, "num_train_epochs": 3, "gradient_accumulation_steps": 8}
    trainer = make(
        [Schedule(Scored("a", 0.0, 1.0, 0.5)), Schedule(Seeing("b", 1.0))], **settings, **epochs
    )
    trainer.add_callback(transformers.EarlyStoppingCallback(1))
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step < trainer.state.max_steps
    assert list(logged(trainer, "eval_b_success")) == [0, trainer.state.global_step]
    loaded = fingerprint(trainer.model)  # the best step's
    assert len({*seen, loaded}) == 3


def test_early_stopping_that_the_trainer_was_made_with_sees_the_figure(
    make: Callable[..., Any],
) -> None:
    trainer = make([Schedule(Scored("a", 0.0, 1.0, 0.5))], steps=6, **choosing())
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(len(callbacks) - 1, transformers.EarlyStoppingCallback(1))
    trainer.train()
    assert trainer.state.global_step == 2  # one step after the best one
    assert len(trainer.callback_handler.callbacks) == len(callbacks)


def test_training_again_after_an_interrupt_measures_the_base(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """In a notebook the trainer, and its callback, outlive Ctrl-C."""
    trainer = make([Schedule(Scored("a", 0.5, killed_at=(0, 4)))], steps=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1]
    assert 1 in logged(trainer, "eval_a_success_change")


@pytest.mark.parametrize(
    ("schedule", "policy", "expected"),
    [
        (
            {},
            EvaluationPolicy(stop_if_general_drops=ScoreFloor("mmlu")),
            "stop_if_general_drops.evaluator: found 'mmlu', expected .*: a$",
        ),
        (
            {},
            EvaluationPolicy(best=BestCheckpoint("b", ScoreFloor("a"))),
            "best.evaluator: found 'b'",
        ),
        (
            {},
            EvaluationPolicy(best=BestCheckpoint("a", ScoreFloor("b"))),
            "best.floor.evaluator: found 'b'",
        ),
        (
            {"at_start": False},
            EvaluationPolicy(stop_if_general_drops=ScoreFloor("a")),
            "found 'a' with at_start false",
        ),
    ],
)
def test_a_rule_that_could_never_act_is_refused(
    make: Callable[..., Any], schedule: dict[str, Any], policy: EvaluationPolicy, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        make([Schedule(Scored("a", 1.0), **schedule)], policy)


def test_a_second_callback_is_refused(make: Callable[..., Any]) -> None:
    trainer = make([Schedule(Scored("a", 1.0))])
    with pytest.raises(ConfigError, match="it already has an EvaluatorCallback"):
        EvaluatorCallback.install(trainer, [Schedule(Scored("b", 1.0))])
    trainer.remove_callback(EvaluatorCallback)
    EvaluatorCallback.install(trainer, [Schedule(Scored("b", 1.0))])


def test_a_loss_cannot_be_the_best_score(make: Callable[..., Any]) -> None:
    loss = Scored("general", 1.0)
    loss.primary = "loss"
    with pytest.raises(ConfigError, match="found 'general', a loss"):
        make(
            [Schedule(loss)],
            EvaluationPolicy(best=BestCheckpoint("general", ScoreFloor("general"))),
        )


def test_the_overall_of_a_suite_can_choose_the_checkpoint(make: Callable[..., Any]) -> None:
    names = [each.name for each in BENCHMARKS if each.suite == "held-in"]
    by_overall = choosing(metric_for_best_model="held_in_overall", eval_steps=2, save_steps=2)
    trainer = make([Schedule(Scored(name, 0.0, 1.0, 0.5)) for name in names], **by_overall)
    trainer.train()
    assert trainer.state.best_global_step == 2
    with pytest.raises(ConfigError, match=f"all its tasks among the evaluators; {names[0]} are"):
        make([Schedule(Scored(name, 1.0)) for name in names[1:]], **by_overall)


def test_the_server_is_given_the_last_step_and_not_the_best_one(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    # The loss falls, so the first evaluation stays the "best" one.
    wrong_way = choosing(metric_for_best_model="eval_loss", greater_is_better=True)
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=2, **wrong_way)
    EndpointCallback.install(trainer, settings(NOBODY, at_start=False))
    trainer.train()
    assert trainer.state.best_global_step == 1
    (adapter,) = tmp_path.glob("endpoint/step-2/adapter-*")
    places = tmp_path / "checkpoint-1", tmp_path / "checkpoint-2", adapter
    best, last, sent = [(place / "adapter_model.safetensors").read_bytes() for place in places]
    assert sent == last != best


def test_a_second_training_is_measured_at_its_own_end(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1)
    EndpointCallback.install(trainer, settings(NOBODY, at_start=False))
    for _ in range(2):
        trainer.train()
        assert [row["step"] for row in records(tmp_path)] == [1]


def test_runs_in_folders_of_one_name_do_not_take_each_others_adapter(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    """Axolotl's examples all write to `outputs/out`; a server may be shared."""
    names = set()
    for team in ("a", "b"):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path / team / "out", steps=1)
        EndpointCallback.install(trainer, settings(NOBODY, at_end=False))
        trainer.train()
        reason = records(tmp_path / team / "out")[0]["error"]
        names.add(re.search(r"out-\w+-step-0", reason).group())  # type: ignore[union-attr]
    assert len(names) == 2
