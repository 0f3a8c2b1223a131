"""The callback inside a real Hugging Face Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.errors import ConfigError

torch = pytest.importorskip("torch", reason="pip install 'agenttuning-plugin[eval]'")
transformers = pytest.importorskip("transformers")

from evaluators.results.history import discard_after_step  # noqa: E402
from evaluators.tasks.agent_task import AgentTaskEvaluator  # noqa: E402
from evaluators.tasks.general_loss import GeneralLossEvaluator  # noqa: E402
from evaluators.training.callback import EvaluationPolicy, EvaluatorCallback, Schedule  # noqa: E402
from evaluators.training.trainer_target import subject_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)


@pytest.fixture
def rows(small_tokenizer: Any) -> Any:
    talks = [
        Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
        for i in range(32)
    ]
    return encode_dataset(talks, Encoder(small_tokenizer, max_length=512)).dataset


def make_trainer(
    folder: Path, rows: Any, output: Path, *, steps: int = 4, dropout: float = 0.0, **settings: Any
) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attention_dropout=dropout, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    arguments = transformers.TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=2,
        logging_steps=settings.pop("logging_steps", 1),
        save_strategy=settings.pop("save_strategy", "no"),
        report_to=[],
        use_cpu=True,
        seed=5,
        disable_tqdm=True,
        **settings,
    )
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)
    return transformers.Trainer(
        model, arguments, data_collator=collator, train_dataset=rows, processing_class=tokenizer
    )


def panel(rows: Any, **when: Any) -> list[Schedule]:
    play = AgentTaskEvaluator("database", num_tasks=2, max_new_tokens=3)
    return [Schedule(play, **when), Schedule(GeneralLossEvaluator(rows.select(range(4))), **when)]


def steps_logged(trainer: Any, key: str) -> list[int]:
    return [entry["step"] for entry in trainer.state.log_history if key in entry]


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "evaluations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_runs_at_start_on_cadence_and_at_end(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=5)
    EvaluatorCallback.install(trainer, panel(rows, every=2))
    trainer.train()
    assert steps_logged(trainer, "eval_database_success") == [0, 2, 4, 5]
    assert steps_logged(trainer, "eval_general_loss") == [0, 2, 4, 5]
    # Evaluating at a step must not swallow that step's training log.
    assert steps_logged(trainer, "loss") == [1, 2, 3, 4, 5]
    lines = records(tmp_path)
    assert [(line["step"], line["evaluator"]) for line in lines] == [
        (step, name) for step in (0, 2, 4, 5) for name in ("database", "general")
    ]
    assert all(
        len(line["records"]) == line["metrics"][first]["n"]
        for line in lines
        for first in list(line["metrics"])[:1]
    )


def test_runs_once_where_cadence_and_end_meet(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=4)
    EvaluatorCallback.install(trainer, panel(rows, every=4, at_start=False))
    trainer.train()
    assert steps_logged(trainer, "eval_database_success") == [4]


def test_training_is_bit_identical_with_and_without(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    weights = []
    for number, schedules in enumerate(([], panel(rows, every=1))):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path / str(number), dropout=0.2)
        if schedules:
            EvaluatorCallback.install(trainer, schedules)
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_estimate_of_the_time_of_a_step_draws_nothing(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    """A collator may draw, as one that masks tokens; the budget asks it for a batch."""
    weights = []
    for number, share in enumerate((None, 0.5)):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path / str(number), dropout=0.2)
        collate = trainer.data_collator
        trainer.data_collator = lambda given, collate=collate: (torch.rand(1), collate(given))[1]
        EvaluatorCallback.install(
            trainer, panel(rows), policy=EvaluationPolicy(max_time_share=share)
        )
        trainer.train()
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_dropout_is_on_in_that_comparison(tiny_model_dir: Path, rows: Any, tmp_path: Path) -> None:
    losses = []
    for dropout in (0.0, 0.2):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1, dropout=dropout)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] != losses[1]


def test_a_resumed_run_does_not_measure_the_base_again(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    first = make_trainer(
        tiny_model_dir, rows, tmp_path, steps=2, save_strategy="steps", save_steps=2
    )
    EvaluatorCallback.install(first, panel(rows))
    first.train()
    second = make_trainer(tiny_model_dir, rows, tmp_path, steps=4)
    EvaluatorCallback.install(second, panel(rows))
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [line["step"] for line in records(tmp_path)] == [0, 0, 2, 2, 4, 4]


def test_a_resumed_run_forgets_what_it_measures_again(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    first = make_trainer(
        tiny_model_dir, rows, tmp_path, steps=3, save_strategy="steps", save_steps=2
    )
    EvaluatorCallback.install(first, panel(rows, every=1))
    first.train()
    before = (tmp_path / "evaluations.jsonl").read_text("utf-8")
    with (tmp_path / "evaluations.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 1, "eval')  # killed while it wrote
    second = make_trainer(tiny_model_dir, rows, tmp_path, steps=3)
    EvaluatorCallback.install(second, panel(rows, every=1))
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [line["step"] for line in records(tmp_path)] == [0, 0, 1, 1, 2, 2, 3, 3]
    # What came before the checkpoint is the same to the byte.
    after = (tmp_path / "evaluations.jsonl").read_text("utf-8")
    assert after.split("\n")[:6] == before.split("\n")[:6]


def test_a_finished_run_that_is_resumed_measures_nothing_twice(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    two_steps = rows.select(range(4))  # of a longer epoch, Trainer would take one step more
    for number in range(2):
        trainer = make_trainer(
            tiny_model_dir, two_steps, tmp_path, steps=2, save_strategy="steps", save_steps=2
        )
        EvaluatorCallback.install(trainer, panel(rows)[1:])
        trainer.train(resume_from_checkpoint=number > 0)
    assert [line["step"] for line in records(tmp_path)] == [0, 2]


def test_an_end_that_was_not_measured_is_measured_on_resume(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    two_steps = rows.select(range(4))  # of a longer epoch, Trainer would take one step more
    for number in range(2):
        trainer = make_trainer(
            tiny_model_dir, two_steps, tmp_path, steps=2, save_strategy="steps", save_steps=2
        )
        EvaluatorCallback.install(trainer, panel(rows)[1:])
        trainer.train(resume_from_checkpoint=number > 0)
        if not number:  # killed after the last checkpoint, before the evaluation
            kept = (tmp_path / "evaluations.jsonl").read_text("utf-8").split("\n")[0]
            (tmp_path / "evaluations.jsonl").write_text(kept + "\n", "utf-8")
    assert [line["step"] for line in records(tmp_path)] == [0, 2]


def test_a_second_run_in_the_same_folder_keeps_the_first_aside(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    (tmp_path / "evaluations.previous-1.jsonl").write_text("before\n", "utf-8")
    for _ in range(2):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1)
        EvaluatorCallback.install(trainer, panel(rows)[1:])
        trainer.train()
    assert [line["step"] for line in records(tmp_path)] == [0, 1]
    assert (tmp_path / "evaluations.previous-1.jsonl").read_text("utf-8") == "before\n"
    assert (tmp_path / "evaluations.previous-2.jsonl").is_file()


def test_damaged_records_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "evaluations.jsonl"
    good = [json.dumps({"step": step, "evaluator": "a"}) for step in (0, 2, 4)]
    damaged = [b'{"step": 1, "eval', b"\xff", b"3", b'{"step": "2"}', b""]
    path.write_bytes(b"\n".join([good[0].encode(), *damaged, *map(str.encode, good[1:]), b""]))
    assert [row["step"] for row in discard_after_step(tmp_path, 2)] == [0, 2]
    assert path.read_text("utf-8") == "".join(line + "\n" for line in good[:2])
    assert "5 damaged lines skipped" in caplog.text


def test_two_evaluators_of_one_name_are_refused(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    with pytest.raises(ConfigError, match="expected different names"):
        EvaluatorCallback(trainer, [*panel(rows), *panel(rows)])
    assert AgentTaskEvaluator("database", split="dev", num_tasks=1).name == "database_dev"


class Blocks(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Puts a folder where the records are to be written."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        (Path(args.output_dir) / "evaluations.jsonl").mkdir(exist_ok=True)


def test_results_that_cannot_be_written_do_not_end_training(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the disk is full: the figures are in the log."""
    for strict in (False, True):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path / str(strict), steps=2)
        EvaluatorCallback.install(
            trainer, panel(rows, at_start=False), policy=EvaluationPolicy(strict=strict)
        )
        trainer.add_callback(Blocks())
        if strict:
            with pytest.raises(IsADirectoryError):
                trainer.train()
        else:
            trainer.train()
            assert steps_logged(trainer, "eval_general_loss") == [2]
            assert "results are only in the log: [Errno" in caplog.text


class Processor(transformers.ProcessorMixin):  # type: ignore[misc]  # transformers is untyped
    """As of a model that sees images."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer


def test_a_trainer_without_tokenizer_is_refused_at_once(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    tokenizer, trainer.processing_class = trainer.processing_class, None
    with pytest.raises(ConfigError, match="without processing_class, expected the model's"):
        EvaluatorCallback.install(trainer, panel(rows, every=250, at_start=False))
    trainer.processing_class = Processor(tokenizer)
    assert subject_of(trainer).tokenizer is tokenizer


def test_a_cadence_below_one_is_refused(rows: Any) -> None:
    with pytest.raises(ConfigError, match="every: found 0"):
        Schedule(GeneralLossEvaluator(rows), every=0)
