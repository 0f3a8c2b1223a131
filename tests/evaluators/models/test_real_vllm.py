"""A real vLLM: it answers as the same weights do here, and what is wrong there is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

for _module in ("torch", "transformers", "openai", "peft"):
    pytest.importorskip(_module)

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from agenttuning_plugin.config.endpoint import EndpointConfig  # noqa: E402
from agenttuning_plugin.evaluation.endpoint_callback import EndpointCallback  # noqa: E402
from agenttuning_plugin.evaluation.model_loading import load_subject, open_subject  # noqa: E402
from agenttuning_plugin.preflight.endpoint import check_endpoint  # noqa: E402
from dataset_builders.collection.collector import run as collect  # noqa: E402
from dataset_builders.collection.engine import RolloutConfig  # noqa: E402
from dataset_builders.collection.settings import CollectConfig  # noqa: E402
from dataset_builders.conversation import Conversation, Message  # noqa: E402
from dataset_builders.encoding.tokens import Encoder, encode_dataset  # noqa: E402
from dataset_builders.endpoints.endpoint import Endpoint as Place  # noqa: E402
from dataset_builders.endpoints.requests import Sampling  # noqa: E402
from dataset_builders.environments import load_environment  # noqa: E402
from dataset_builders.errors import ConfigError  # noqa: E402
from evaluators.evaluator import EvalTarget  # noqa: E402
from evaluators.runner import run_evaluator  # noqa: E402
from evaluators.tasks.agent_task import AgentTaskEvaluator  # noqa: E402
from evaluators.tasks.held_in import held_in_evaluator  # noqa: E402
from evaluators.tasks.registry import SuiteSettings  # noqa: E402
from tests.support.vllm_server import NEEDS_VLLM, serving_vllm, small_model, vllm_python  # noqa: E402

PYTHON = vllm_python()

pytestmark = [
    *NEEDS_VLLM,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]

TASKS, TOKENS = 3, 12


@pytest.fixture(scope="module")
def model(small_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm-model")
    small_model(small_tokenizer).save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert PYTHON is not None
    with serving_vllm(PYTHON, model, tmp_path_factory.mktemp("vllm") / "log.txt") as url:
        yield url


def said(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What the model wrote, by episode; a character that the limit cut in two is left out."""
    return [
        [m["content"].rstrip("\ufffd") for m in record["messages"] if m["role"] == "assistant"]
        for record in records
    ]


def test_a_served_model_is_evaluated_as_the_same_weights_here(model: Path, address: str) -> None:
    evaluator = AgentTaskEvaluator("database", num_tasks=TASKS, max_new_tokens=TOKENS)
    here = run_evaluator(evaluator, load_subject(str(model)))
    subject = open_subject(address, model_name="base")
    there = run_evaluator(evaluator, subject)
    subject.server.close()  # type: ignore[union-attr]
    assert said(there.records) == said(here.records)
    assert there.metrics == here.metrics


def test_a_served_model_is_collected_from(address: str, tmp_path: Path) -> None:
    play = RolloutConfig(
        load_environment("database"),
        Place("base", address),
        Sampling(temperature=0.0, max_tokens=TOKENS),
        max_concurrency=4,
    )
    report = collect(CollectConfig(play, tmp_path, num_tasks=4))
    assert (report["done"], report["open"]) == (4, 0)
    assert report["requests"] >= 4
    assert report["prompt_tokens"] > report["completion_tokens"] > 0


def make_trainer(model: Path, output: Path, rate: float) -> Any:
    torch.manual_seed(3)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = peft.LoraConfig(
        r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    talks = [
        Conversation.create([Message("user", f"{i}?"), Message("assistant", f"{i}!" * 3, True)])
        for i in range(8)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(output),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=rate,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return transformers.Trainer(
        peft.get_peft_model(loaded, config),
        arguments,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        train_dataset=encode_dataset(talks, Encoder(tokenizer, max_length=512)).dataset,
        processing_class=tokenizer,
    )


def settings(address: str) -> EndpointConfig:
    return EndpointConfig(
        base_url=address,
        suites=["database"],
        limit=TASKS,
        max_new_tokens=TOKENS,
        at_start=False,
        strict=True,
    )


def test_a_second_run_in_the_same_folder_is_measured_with_its_own_weights(
    model: Path, address: str, tmp_path: Path
) -> None:
    """vLLM keeps its prefix cache by an adapter's name and path, also when that is unloaded."""
    written = []
    for rate in (0.05, 0.2):
        trainer = make_trainer(model, tmp_path, rate)
        EndpointCallback.install(trainer, settings(address))
        trainer.train()
        (line,) = (tmp_path / "evaluations.jsonl").read_text("utf-8").splitlines()
        row = json.loads(line)
        assert (row["step"], row["evaluator"]) == (2, "endpoint_database")
        evaluator = held_in_evaluator("database", SuiteSettings(max_new_tokens=TOKENS))
        subject = EvalTarget(trainer.model.eval(), trainer.processing_class)
        here = run_evaluator(evaluator, subject, limit=TASKS)
        transcript = tmp_path / "endpoint/step-2/transcripts/database.jsonl"
        lines = transcript.read_text("utf-8").splitlines()[1:]  # Below its heading.
        there = {record["item"]: record for record in map(json.loads, lines)}
        answers = said([there[record["item"]] for record in here.records])
        assert answers == said(here.records)
        written.append(answers)
    assert written[0] != written[1]


def test_another_chat_template_is_refused(model: Path, address: str, tmp_path: Path) -> None:
    trainer = make_trainer(model, tmp_path, 0.05)
    tokenizer = trainer.processing_class
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "<|im_start|>::")
    with pytest.raises(ConfigError, match="chat template is not the recipe's"):
        EndpointCallback.install(trainer, settings(address))


def test_check_finds_what_the_server_does_not_bear(
    model: Path, address: str, tmp_path: Path
) -> None:
    cfg = {
        "base_model": str(model),
        "adapter": "lora",
        "lora_r": 8,
        "output_dir": str(tmp_path / "out"),
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    found = list(check_endpoint(cfg, settings(address), tokenizer))
    assert [each.level for each in found] == ["ok"] * 4, found
    too_high = list(check_endpoint(cfg | {"lora_r": 64}, settings(address)))
    assert "rank 64 is greater than max_lora_rank 16" in too_high[-1].detail
    assert not list(tmp_path.iterdir())
