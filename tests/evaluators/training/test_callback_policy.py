"""What the callback does beyond running: change, best step, stop, budget, failures, trackers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.errors import SourceNotFoundError

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.evaluator import EvalResult, EvalTarget, Evaluator, Record  # noqa: E402
from evaluators.tasks.general_loss import GeneralLossEvaluator  # noqa: E402
from evaluators.training.callback import EvaluationPolicy, EvaluatorCallback, Schedule  # noqa: E402
from evaluators.training.floors import BEST_KEY, BestCheckpoint, ScoreFloor  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)


class Told(Evaluator):
    """Says at each run what it is told to: the callback is what is tested here."""

    suite = "held-in"
    primary = "success"

    def __init__(self, name: str, *runs: list[float] | Exception) -> None:
        self.name = name
        self._runs = list(runs)

    def items(self) -> tuple[str, ...]:
        return tuple(f"t{number}" for number in range(8))

    def measure(
        self, subject: EvalTarget, items: Sequence[str], finished: Callable[[Record], None]
    ) -> None:
        run = self._runs.pop(0)
        if isinstance(run, Exception):
            raise run
        for item in items:
            value = run[int(item[1:])]
            messages = [{"role": "assistant", "content": f"I score {value}"}]
            finished(
                {"item": item, "scores": {"success": value}, "error": "", "messages": messages}
            )


@pytest.fixture
def rows(small_tokenizer: Any) -> Any:
    talks = [
        Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
        for i in range(32)
    ]
    return encode_dataset(talks, Encoder(small_tokenizer, max_length=512)).dataset


@pytest.fixture
def train(tiny_model_dir: Path, rows: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(
        schedules: list[Schedule],
        policy: EvaluationPolicy | None = None,
        steps: int = 4,
        unavailable: Sequence[EvalResult] = (),
        **settings: Any,
    ) -> Any:
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=2,
            logging_steps=1,
            report_to=settings.pop("report_to", []),
            save_strategy=settings.pop("save_strategy", "no"),
            use_cpu=True,
            seed=5,
            disable_tqdm=True,
            **settings,
        )
        trainer = transformers.Trainer(
            transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
            arguments,
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
            train_dataset=rows,
            eval_dataset=rows.select(range(2)),
            processing_class=tokenizer,
        )
        EvaluatorCallback.install(trainer, schedules, policy=policy, unavailable=unavailable)
        trainer.train()
        return trainer

    return run


def logged(trainer: Any, key: str) -> dict[int, float]:
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (folder / "evaluations.jsonl").read_text("utf-8").splitlines()))


NONE, HALF, ALL = [0.0] * 8, [1.0] * 4 + [0.0] * 4, [1.0] * 8


def test_change_against_step_0_is_logged_with_its_test(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = train([Schedule(Told("a", NONE, HALF, ALL), every=2)])
    assert logged(trainer, "eval_a_success") == {0: 0.0, 2: 0.5, 4: 1.0}
    assert logged(trainer, "eval_a_success_change") == {2: 0.5, 4: 1.0}
    assert logged(trainer, "eval_a_success_change_p") == {2: 0.125, 4: pytest.approx(2 / 2**8)}
    # Transcripts lie beside, not within, the figures.
    assert all("messages" not in r for row in rows_of(tmp_path) for r in row["records"])
    lines = (tmp_path / "transcripts/step-000002/a.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[1])["messages"][0]["content"] == "I score 1.0"


def test_the_change_survives_a_resume(
    train: Callable[..., Any], tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    train([Schedule(Told("a", NONE, HALF), every=2)], steps=2, save_strategy="steps", save_steps=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model_dir)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=2, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    trainer = transformers.Trainer(
        transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        arguments,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    # What a life that was killed later had left is of other weights.
    (tmp_path / "transcripts/step-000003").mkdir()
    EvaluatorCallback.install(trainer, [Schedule(Told("a", ALL), every=2)])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logged(trainer, "eval_a_success_change") == {2: 0.5, 4: 1.0}
    assert not (tmp_path / "transcripts/step-000003").exists()
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 2, 4]


def test_training_stops_when_the_general_score_drops(train: Callable[..., Any]) -> None:
    floor = ScoreFloor("general_task", by=0.1)
    general = Told("general_task", ALL, ALL, NONE, NONE)
    trainer = train(
        [Schedule(general, every=1)], EvaluationPolicy(stop_if_general_drops=floor), steps=6
    )
    assert trainer.state.global_step == 2


def test_a_drop_that_may_be_chance_does_not_stop_it(train: Callable[..., Any]) -> None:
    one_less = [1.0] * 7 + [0.0]
    general = Told("general_task", ALL, *[one_less] * 4)
    floor = ScoreFloor("general_task", by=0.1)
    assert (
        train(
            [Schedule(general, every=1)], EvaluationPolicy(stop_if_general_drops=floor)
        ).state.global_step
        == 4
    )


def test_the_best_checkpoint_keeps_the_general_score(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    """Step 3 is the best agent and has forgotten how to talk; step 2 is chosen."""
    agent = Told("agent", NONE, HALF, [1.0] * 6 + [0.0] * 2, ALL, HALF)
    general = Told("talk", ALL, ALL, ALL, NONE, ALL)
    best = BestCheckpoint("agent", ScoreFloor("talk", by=0.1))
    trainer = train(
        [Schedule(agent, every=1), Schedule(general, every=1)],
        EvaluationPolicy(best=best),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model=BEST_KEY,
        greater_is_better=True,
    )
    assert logged(trainer, BEST_KEY) == {0: 0.0, 1: 0.5, 2: 0.75, 3: -1.0, 4: 0.5}
    assert trainer.state.best_global_step == 2
    assert trainer.state.best_metric == 0.75
    found = json.loads((tmp_path / "best.json").read_text("utf-8"))
    assert (found["step"], found["score"]) == (2, 0.75)


def test_a_figure_for_the_best_model_is_measured_when_the_trainer_evaluates(
    train: Callable[..., Any],
) -> None:
    told = Told("a", NONE, HALF, ALL)
    trainer = train(
        [Schedule(told)],  # no cadence of its own
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="best",
        metric_for_best_model="eval_a_success",
        greater_is_better=True,
    )
    assert logged(trainer, "eval_a_success") == {0: 0.0, 2: 0.5, 4: 1.0}
    assert trainer.state.best_global_step == 4


def test_an_evaluator_that_breaks_is_recorded_and_training_goes_on(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    broken = Told("a", NONE, ZeroDivisionError("by zero"), ALL)
    lacking = EvalResult("science_world", {}, 0, 0.0, error="Java is absent: apt-get install x")
    trainer = train([Schedule(broken, every=2)], unavailable=(lacking,))
    assert trainer.state.global_step == 4
    assert logged(trainer, "eval_a_failed") == {2: 1.0}
    errors = {(row["step"], row["evaluator"]): row["error"] for row in rows_of(tmp_path)}
    assert errors[2, "a"] == "ZeroDivisionError: by zero"
    assert errors[0, "science_world"].startswith("Java is absent")
    assert errors[4, "a"] == ""


def test_strict_ends_training(train: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        train(
            [Schedule(Told("a", NONE, ZeroDivisionError()), every=2)], EvaluationPolicy(strict=True)
        )


def test_no_task_left_is_a_reason(train: Callable[..., Any], tmp_path: Path) -> None:
    train([Schedule(Told("a"), limit=0)])
    assert [row["error"] for row in rows_of(tmp_path)] == [
        "ConfigError: a: found no task to measure, expected at least one"
    ] * 2


def test_a_budget_measures_fewer_items_and_says_which(
    train: Callable[..., Any], rows: Any, tmp_path: Path
) -> None:
    """A thousandth of a run of a second: a probe before the first step, hardly more later."""
    loss = GeneralLossEvaluator(rows)
    train([Schedule(loss, every=2)], EvaluationPolicy(max_time_share=0.001))
    measured = [len(row["records"]) for row in rows_of(tmp_path)]
    assert measured[0] == 2
    assert all(number < 32 for number in measured)
    last = rows_of(tmp_path)[-1]
    assert last["records"] or "max_time_share" in last["error"]


def test_a_generous_budget_measures_everything(
    train: Callable[..., Any], rows: Any, tmp_path: Path
) -> None:
    train([Schedule(GeneralLossEvaluator(rows), every=2)], EvaluationPolicy(max_time_share=0.99))
    assert len(rows_of(tmp_path)[-1]["records"]) == 32


def test_figures_reach_tensorboard(train: Callable[..., Any], tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    train([Schedule(Told("a", NONE, ALL))], report_to=["tensorboard"])
    values = []
    # Two files: the tracker has closed its own before the last evaluation.
    for event in tmp_path.rglob("events.out.*"):
        found = accumulator.EventAccumulator(str(event))
        found.Reload()
        tags = [tag for tag in found.Tags()["scalars"] if tag.endswith("a_success")]
        values += [(scalar.step, scalar.value) for tag in tags for scalar in found.Scalars(tag)]
    assert sorted(values) == [(0, 0.0), (4, 1.0)]


def test_what_the_machine_lacks_is_told_in_the_recipes_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from agenttuning_plugin.config.recipe import AgentTuningSection
    from agenttuning_plugin.evaluation.from_config import schedules

    monkeypatch.delenv("AGENTTUNING_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    section = {
        "agent": "a.jsonl",
        "general": "g.jsonl",
        "evaluators": [
            {"type": "agent_task", "environment": "database", "num_tasks": 4},
            {"type": "benchmark", "name": "gsm8k", "limit": 5},
            {"type": "replay", "num_trajectories": 3},
        ],
        "evaluation": {"every": 10, "every_generative": 50, "max_time_share": 0.1},
    }
    made, unavailable = schedules(AgentTuningSection.model_validate(section), None)
    assert [(s.evaluator.name, s.every) for s in made] == [("database", 50), ("replay", 10)]
    assert [each.evaluator for each in unavailable] == ["gsm8k"]
    assert "\n" not in unavailable[0].error
    section["evaluation"] = {"strict": True}
    with pytest.raises(SourceNotFoundError):
        schedules(AgentTuningSection.model_validate(section), None)
    section["evaluation"] = {"stop_if_general_drops": {"evaluator": "mmlu"}}
    with pytest.raises(ValueError, match="expected one of the evaluators: database, gsm8k, replay"):
        AgentTuningSection.model_validate(section)
