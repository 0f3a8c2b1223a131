"""Training with LoRA, measured meanwhile on a real server that loads each step's adapter."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_builders.conversation import Conversation, Message
from dataset_builders.encoding.tokens import Encoder, encode_dataset
from dataset_builders.errors import ConfigError, EndpointError, EvaluatorError
from dataset_builders.settings import from_json, to_json

for _module in ("torch", "transformers", "fastapi", "uvicorn", "openai", "peft"):
    pytest.importorskip(_module)

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from agenttuning_plugin.config.endpoint import EndpointConfig  # noqa: E402
from agenttuning_plugin.evaluation import endpoint_callback  # noqa: E402
from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback  # noqa: E402
from agenttuning_plugin.evaluation.endpoint_worker import (  # noqa: E402
    Job,
    load_adapter,
    make_job,
    unload_adapter,
)
from dataset_builders.endpoints.endpoint import Endpoint as Place  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.models.endpoint import EndpointModel  # noqa: E402
from evaluators.models.target import Decoding  # noqa: E402
from tests.support.json_server import serving_json  # noqa: E402
from tests.support.served_model import serving_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    # torch's DataLoader, told by Trainer to pin memory on a machine without accelerator.
    "ignore:'pin_memory' argument is set as true:UserWarning"
)

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def address(tiny_model_dir: Path) -> Iterator[str]:
    with serving_model(tiny_model_dir) as url:
        yield url


@pytest.fixture(scope="module")
def rows(small_tokenizer: Any) -> Any:
    talks = [
        Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
        for i in range(32)
    ]
    return encode_dataset(talks, Encoder(small_tokenizer, max_length=512)).dataset


def make_trainer(
    folder: Path, rows: Any, output: Path, *, steps: int = 4, lora: bool = True, **more: Any
) -> Any:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if lora:
        config = peft.LoraConfig(
            r=4, lora_dropout=0.2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    arguments = transformers.TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        seed=5,
        disable_tqdm=True,
        **{"save_strategy": "no", "learning_rate": 0.05, **more},
    )
    return transformers.Trainer(
        model,
        arguments,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        train_dataset=rows,
        eval_dataset=rows.select(range(2)),
        processing_class=tokenizer,
    )


def settings(url: str, **more: Any) -> EndpointConfig:
    given = {"suites": ["database"], "limit": 1, "max_new_tokens": 4, "wait": 120.0, **more}
    return EndpointConfig(base_url=url, **given)


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "evaluations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def asked(url: str) -> list[str]:
    with urllib.request.urlopen(url.removesuffix("v1") + "log") as answer:
        told: list[str] = json.loads(answer.read())
    return told


def test_training_is_measured_on_the_server_and_not_disturbed(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    alone = make_trainer(tiny_model_dir, rows, tmp_path / "alone")
    alone.train()
    trainer = make_trainer(tiny_model_dir, rows, tmp_path / "run")
    EndpointCallback.install(trainer, settings(address, every=3))
    trainer.train()
    before, after = alone.model.state_dict(), trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["loss"] for row in alone.state.log_history if "loss" in row] == [
        row["loss"] for row in trainer.state.log_history if "loss" in row
    ]
    logged = [row for row in trainer.state.log_history if "eval_endpoint_step" in row]
    assert [row["eval_endpoint_step"] for row in logged] == [0, 3, 4]
    assert all(row["eval_endpoint_not_measured"] == 0 for row in logged)
    assert all("eval_endpoint_database_success" in row for row in logged)
    told = records(tmp_path / "run")
    assert [(row["step"], row["evaluator"]) for row in told] == [
        (step, "endpoint_database") for step in (0, 3, 4)
    ]
    assert all(len(row["records"]) == 1 and not row["error"] for row in told)
    for step in (0, 3, 4):
        folder = tmp_path / f"run/endpoint/step-{step}"
        mine = [
            line for line in asked(address) if re.search(rf" run-.*-step-{step}-[0-9a-f]+$", line)
        ]
        name = mine[0].removeprefix("load ")
        assert mine[0] == f"load {name}"
        assert mine[-1] == f"unload {name}"
        assert f"chat {name}" in mine
        assert (folder / "transcripts/database.jsonl").is_file()
        assert not list(folder.glob("adapter*"))


def test_the_server_answers_with_the_adapter(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
    trainer.model.save_pretrained(tmp_path / "step-9/adapter")
    job = make_job(settings(address), "nine", tmp_path / "step-9")
    load_adapter(job)
    load_adapter(job)  # again, in place of the first
    texts = ["once upon", "def f(x):", "a b c", "12 + 7 ="]
    served = EndpointModel(Place("nine", address))
    with torch.no_grad():
        mine = EvalTarget(trainer.model.eval(), trainer.processing_class).language_model()
        expected = mine.continue_text(texts, Decoding(8))
        with trainer.model.disable_adapter():
            base = mine.continue_text(texts, Decoding(8))
    assert served.continue_text(texts, Decoding(8)) == expected != base
    served.close()
    unload_adapter(job)
    with pytest.raises(EndpointError, match="unload_lora_adapter nine: HTTP 404"):
        unload_adapter(job)


def test_a_dead_server_is_recorded_and_training_goes_on(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=2)
    EndpointCallback.install(trainer, settings(NOBODY, at_start=False))
    trainer.train()
    assert trainer.state.global_step == 2
    (row,) = records(tmp_path)
    assert (row["step"], row["evaluator"], row["metrics"]) == (2, "endpoint", {})
    assert "load_lora_adapter" in row["error"]
    assert "refused" in row["error"]
    assert "step 2 was not wholly measured" in caplog.text
    assert len(list(tmp_path.glob("endpoint/step-2/adapter-*/adapter_config.json"))) == 1


def test_strict_ends_training_with_the_reason(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1)
    EndpointCallback.install(trainer, settings(NOBODY, at_start=False, strict=True))
    with pytest.raises(EvaluatorError, match=r"endpoint: step 1: .*load_lora_adapter"):
        trainer.train()


def test_results_that_do_not_come_in_time_are_recorded(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1)
    EndpointCallback.install(trainer, settings(address, wait=0.0))
    trainer.train()
    assert [(row["step"], row["error"]) for row in records(tmp_path)] == [
        (step, "not finished 0 s after training") for step in (0, 1)
    ]


def test_a_resumed_run_measures_what_was_left_and_nothing_twice(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Done:
        """Stands for the side process, whose own tests are elsewhere."""

        def __init__(self, module: str, arguments: list[str], *_: Any) -> None:
            started.append(
                int(json.loads(arguments[0])["run"]["model_name"].split("-step-")[1].split("-")[0])
            )

        def wait(self, seconds: float) -> int:
            return 0

        def poll(self) -> int:
            return 0

        def last_line(self) -> str:
            return ""

    monkeypatch.setattr(endpoint_callback, "SideProcess", Done)
    first = make_trainer(tiny_model_dir, rows, tmp_path, save_strategy="steps", save_steps=2)
    EndpointCallback.install(first, settings(NOBODY, every=1))
    first.train()
    assert started == [0, 1, 2, 3, 4]
    (tmp_path / "endpoint/step-1/adapter-1a2b").mkdir()  # as if its measurement had been cut off
    started.clear()
    second = make_trainer(tiny_model_dir, rows, tmp_path, save_strategy="steps", save_steps=2)
    EndpointCallback.install(second, settings(NOBODY, every=1))
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert started == [1, 3, 4]
    started.clear()
    third = make_trainer(tiny_model_dir, rows, tmp_path, steps=1)
    EndpointCallback.install(third, settings(NOBODY))
    third.train()
    assert started == [0, 1]
    assert (tmp_path / "endpoint.previous-1/step-4").is_dir()


def test_what_is_no_lora_adapter_is_refused(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    full = make_trainer(tiny_model_dir, rows, tmp_path, lora=False)
    with pytest.raises(ConfigError, match="found a full model, expected a LoRA adapter"):
        EndpointCallback(full, settings(NOBODY))
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    full.model = peft.get_peft_model(
        model, peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    )
    with pytest.raises(ConfigError, match="PROMPT_TUNING"):
        EndpointCallback(full, settings(NOBODY))


def test_a_figure_that_comes_too_late_cannot_choose_checkpoints(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    best = {"metric_for_best_model": "eval_endpoint_database_success"}
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, **best)
    with pytest.raises(ConfigError, match="expected a figure of agenttuning"):
        EndpointCallback(trainer, settings(NOBODY))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"suites": ["chess"]}, "found 'chess', expected any of held-in"),
        ({"suites": []}, "suites"),
        ({"every": 0}, "every"),
        ({"lora_route": "tgi"}, "lora_route"),
        ({"evrey": 3}, "evrey"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        EndpointConfig(**{"base_url": NOBODY, **given})


def test_settings_reach_the_side_process(tmp_path: Path) -> None:
    config = settings(
        NOBODY, suites=["os", "database"], options={"database": {"backend": "mariadb"}}, data="/d"
    )
    job = make_job(config, "x", tmp_path)
    assert (job.run.model, job.run.model_name) == (NOBODY, "x")
    assert job.run.tasks.options == {"database": {"backend": "mariadb"}}
    assert job.run.suites == ("os", "database")
    assert job.run.tasks.data == "/d"
    assert job.run.tasks.judge is None
    assert not job.run.chat_template_kwargs
    prompts = {"template_kwargs": {"enable_thinking": False}}
    told = make_job(config, "x", tmp_path, prompts=prompts)
    assert told.run.chat_template_kwargs == {"enable_thinking": False}
    assert from_json(Job, to_json(told)) == told


def test_other_weights_have_another_name_and_path_in_the_same_folder(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[tuple[str, str]] = []

    class Done:
        """Stands for the side process, whose own tests are elsewhere."""

        def __init__(self, module: str, arguments: list[str], *_: Any) -> None:
            given = json.loads(arguments[0])
            jobs.append((given["run"]["model_name"], given["adapter"]))
            assert Path(given["adapter"], "adapter_model.safetensors").is_file()

        def wait(self, seconds: float) -> int:
            return 0

        def poll(self) -> int:
            return 0

        def last_line(self) -> str:
            return ""

    monkeypatch.setattr(endpoint_callback, "SideProcess", Done)
    for rate in (0.05, 0.05, 0.01):
        trainer = make_trainer(tiny_model_dir, rows, tmp_path, steps=1, learning_rate=rate)
        EndpointCallback.install(trainer, settings(NOBODY, at_start=False))
        trainer.train()
    (name, path), again, (other_name, other_path) = jobs
    assert again == (name, path)
    assert other_name != name
    assert other_path != path


def test_another_chat_template_is_refused_at_the_start(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    template = trainer.processing_class.chat_template
    trainer.processing_class.chat_template = template.replace("<|im_start|>", "<|im_start|>::")
    with pytest.raises(ConfigError, match=r"template is not the recipe's: from token 1") as told:
        EndpointCallback.install(trainer, settings(address))
    file = tmp_path / "endpoint/chat_template.jinja"
    assert str(file) in str(told.value)
    assert file.read_text("utf-8") == trainer.processing_class.chat_template


def test_an_end_token_that_the_server_writes_on_after_is_refused(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    with pytest.raises(ConfigError, match=r"endoftext\|> ends a turn in the recipe"):
        EndpointCallback.install(trainer, settings(address), ("<|endoftext|>",))


def test_the_last_figures_come_before_the_trackers_close(
    tiny_model_dir: Path, rows: Any, tmp_path: Path, address: str
) -> None:
    class Tracker(transformers.TrainerCallback):
        """As MLflow's, it ends its run with training."""

        def __init__(self) -> None:
            self.open, self.steps = True, list[float]()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if self.open and "eval_endpoint_step" in logs:
                self.steps.append(logs["eval_endpoint_step"])

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.open = False

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    endpoint_callback.LOG.addHandler(handler)
    try:
        trainer, tracker = make_trainer(tiny_model_dir, rows, tmp_path, steps=1), Tracker()
        trainer.add_callback(tracker)
        EndpointCallback.install(trainer, settings(address))
        trainer.train()
    finally:
        endpoint_callback.LOG.removeHandler(handler)
    assert tracker.steps == [0, 1]
    assert any(line.startswith("waiting for step 1 at http://127") for line in lines)
    assert isinstance(trainer.callback_handler.callbacks[-1], EndpointCallback)


def test_adapters_that_vllm_does_not_load_are_refused(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_model_dir, rows, tmp_path, lora=False)
    for more in ({"use_dora": True}, {"modules_to_save": ["norm"]}):
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **more)
        trainer.model = peft.get_peft_model(model, config)
        with pytest.raises(ConfigError, match=f"{next(iter(more))}, which vLLM does not load"):
            EndpointCallback(trainer, settings(NOBODY))


def test_the_templates_variables_reach_the_server(
    tiny_model_dir: Path, rows: Any, tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> Any:
        asked.append(question)
        return {"data": [{"id": "base"}], "choices": []}

    trainer = make_trainer(tiny_model_dir, rows, tmp_path)
    variables = {"enable_thinking": False}
    with serving_json(answer) as url:
        EndpointCallback.install(trainer, settings(f"{url}v1"), template_kwargs=variables)
    prompts = [each for each in asked if "add_generation_prompt" in each]
    assert [each["chat_template_kwargs"] for each in prompts] == [variables]
